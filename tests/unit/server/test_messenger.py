from __future__ import annotations

import os
import socket

import pytest
import ujson

from gtask.server.messenger import MOST, Messenger


@pytest.fixture
def ends():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.setblocking(False)
    yield ours, theirs
    ours.close()
    theirs.close()


def fill(end: socket.socket) -> int:
    for number in range(1_000_000):
        try:
            end.send(b'{"event":"filling"}', socket.MSG_DONTWAIT)
        except BlockingIOError:
            return number
    raise AssertionError("it takes anything")


def heard(end: socket.socket) -> list[dict]:
    messages = []
    while True:
        try:
            messages.append(ujson.loads(end.recv(65536)))
        except BlockingIOError:
            return messages


def test_a_message_says_whose_it_is(ends):
    messenger = Messenger(ends[0])
    messenger.row = 3
    messenger.tell("ready")
    assert heard(ends[1]) == [{"event": "ready", "row": 3, "pid": os.getpid()}]


def test_what_does_not_fit_is_sent_later_and_in_order(ends):
    messenger = Messenger(ends[0])
    filled = fill(ends[0])
    for number in range(5):
        messenger.tell("recycle", reason=str(number))
    messenger.flush()
    assert len(heard(ends[1])) == filled
    messenger.flush()
    messenger.flush()
    assert [each["reason"] for each in heard(ends[1])] == ["0", "1", "2", "3", "4"]


def test_it_keeps_a_thousand_at_most(ends):
    messenger = Messenger(ends[0])
    fill(ends[0])
    for _ in range(MOST + 500):
        messenger.tell("recycle")
    told = 0
    while messages := heard(ends[1]):
        told += sum(each["event"] == "recycle" for each in messages)
        messenger.flush()
    assert told == MOST


def test_newer_ones_replace_those_of_their_kind(ends):
    messenger = Messenger(ends[0])
    fill(ends[0])
    messenger.tell("connections", number=1)
    messenger.tell("ready")
    messenger.forget("connections")
    messenger.tell("connections", number=2)
    heard(ends[1])
    messenger.flush()
    assert [(each["event"], each.get("number")) for each in heard(ends[1])] == [
        ("ready", None),
        ("connections", 2),
    ]


def test_last_words_wait_for_room_but_not_for_ever(ends):
    messenger = Messenger(ends[0])
    fill(ends[0])
    reader = os.fork()
    if reader == 0:
        ends[1].setblocking(True)
        while b"failed" not in ends[1].recv(65536):
            pass
        os._exit(0)
    messenger.tell_at_last("failed", reason="no")
    assert os.waitpid(reader, 0)[1] == 0
    fill(ends[0])
    messenger.tell_at_last("failed", reason="nobody reads this one")


def test_a_master_that_has_gone_is_no_error(ends):
    ends[1].close()
    messenger = Messenger(ends[0])
    messenger.tell("ready")
    messenger.tell_at_last("failed")
