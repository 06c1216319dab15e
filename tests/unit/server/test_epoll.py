"""epoll_ctl(2) by hand, against the standard library's epoll."""

from __future__ import annotations

import ctypes
import errno
import os
import select

import pytest

from gtask.server import epoll


@pytest.fixture
def watched():
    """An epoll, and both ends of a pipe in which something waits to be read."""
    read, write = os.pipe()
    os.write(write, b"x")
    with select.epoll() as poll:
        yield poll, read
    os.close(read)
    os.close(write)


def test_a_descriptor_is_added_and_taken_away(watched):
    poll, fd = watched
    event = epoll.Event(epoll.IN, fd)
    assert epoll.control(poll.fileno(), epoll.ADD, fd, event)
    assert poll.poll(0) == [(fd, select.EPOLLIN)]
    assert epoll.control(poll.fileno(), epoll.DEL, fd, event)
    assert poll.poll(0) == []


def test_the_data_comes_back_as_it_was_given(watched):
    poll, fd = watched
    assert epoll.control(poll.fileno(), epoll.ADD, fd, epoll.Event(epoll.IN, 4711))
    assert poll.poll(0) == [(4711, select.EPOLLIN)]


def test_an_exclusive_registration_is_one(watched):
    poll, fd = watched
    assert epoll.control(poll.fileno(), epoll.ADD, fd, epoll.Event(epoll.IN | epoll.EXCLUSIVE, fd))
    assert poll.poll(0) == [(fd, select.EPOLLIN)]
    with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):  # epoll_ctl(2): no MOD of it
        poll.modify(fd, select.EPOLLIN)


def test_what_cannot_be_done_is_told(watched):
    poll, fd = watched
    event = epoll.Event(epoll.IN, fd)
    assert not epoll.control(poll.fileno(), epoll.DEL, fd, event)
    assert epoll.control(poll.fileno(), epoll.ADD, fd, event)
    assert not epoll.control(poll.fileno(), epoll.ADD, fd, event)
    assert not epoll.control(-1, epoll.ADD, fd, event)


def test_an_event_has_the_size_that_the_kernel_expects():
    packed = 12 if os.uname().machine == "x86_64" else 16
    assert ctypes.sizeof(epoll.Event) == packed
