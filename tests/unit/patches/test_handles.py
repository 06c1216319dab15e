"""The handle of a thread, as Python 3.13's `threading` uses it."""

from __future__ import annotations

import gevent
import pytest

from gtask.patches.handles import ThreadHandle


def start(function, args=()):
    return id(gevent.spawn(function, *args))


def test_its_life():
    handle = ThreadHandle()
    assert (handle.ident, handle.is_done()) == (None, False)
    for use in (handle.join, handle._set_done):
        with pytest.raises(RuntimeError, match="not started"):
            use()
    gate = gevent.event.Event()
    handle.start(gate.wait, start)
    assert handle.ident is not None
    assert not handle.is_done()
    assert "running" in repr(handle)
    with pytest.raises(RuntimeError, match="already started"):
        handle.start(gate.wait, start)
    handle.join(0.01)
    assert not handle.is_done()
    gate.set()
    handle.join(None)
    handle.join()
    assert handle.is_done()
    assert "done" in repr(handle)


def test_who_runs_in_it_cannot_join_it():
    handle, seen = ThreadHandle(), []

    def work():
        try:
            handle.join()
        except RuntimeError as error:
            seen.append(str(error))

    handle.start(work, start)
    handle.join(5)
    assert seen == ["Cannot join current thread"]


def test_an_error_ends_it_too():
    handle = ThreadHandle()
    handle.start(lambda: gevent.getcurrent().throw(gevent.GreenletExit), start)
    handle.join(5)
    assert handle.is_done()
    handle._set_done()
