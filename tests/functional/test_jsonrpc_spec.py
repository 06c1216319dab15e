"""Every example of section 7 of the JSON-RPC 2.0 specification, on a real worker.

https://www.jsonrpc.org/specification#examples
"""

from __future__ import annotations

import json

import pytest

from ..support.peer import Peer

MODULE = """
from gtask import task

@task
def subtract(minuend, subtrahend):
    return minuend - subtrahend

@task
def update(*numbers): pass

@task
def foobar(): pass

@task(name="sum")
def total(*numbers):
    return sum(numbers)

@task
def notify_hello(number): pass

@task
def notify_sum(*numbers): pass

@task
def get_data():
    return ["hello", 5]
"""
INI = "[worker:Tasks]\nlisten = text://127.0.0.1:0\ntasks = spec\n"

CALLS = [
    ('{"jsonrpc": "2.0", "method": "subtract", "params": [42, 23], "id": 1}',
     '{"jsonrpc": "2.0", "result": 19, "id": 1}'),
    ('{"jsonrpc": "2.0", "method": "subtract", "params": [23, 42], "id": 2}',
     '{"jsonrpc": "2.0", "result": -19, "id": 2}'),
    ('{"jsonrpc": "2.0", "method": "subtract", "params": {"subtrahend": 23, "minuend": 42}, "id": 3}',
     '{"jsonrpc": "2.0", "result": 19, "id": 3}'),
    ('{"jsonrpc": "2.0", "method": "subtract", "params": {"minuend": 42, "subtrahend": 23}, "id": 4}',
     '{"jsonrpc": "2.0", "result": 19, "id": 4}'),
    ('{"jsonrpc": "2.0", "method": "no_such", "id": "1"}',
     '{"jsonrpc": "2.0", "error": {"code": -32601}, "id": "1"}'),
    ('{"jsonrpc": "2.0", "method": "foobar, "params": "bar", "baz]',
     '{"jsonrpc": "2.0", "error": {"code": -32700}, "id": null}'),
    ('{"jsonrpc": "2.0", "method": 1, "params": "bar"}',
     '{"jsonrpc": "2.0", "error": {"code": -32600}, "id": null}'),
    ('[{"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"}, {"jsonrpc": "2.0", "method"]',
     '{"jsonrpc": "2.0", "error": {"code": -32700}, "id": null}'),
    ("[]", '{"jsonrpc": "2.0", "error": {"code": -32600}, "id": null}'),
    ("[1]", '[{"jsonrpc": "2.0", "error": {"code": -32600}, "id": null}]'),
    ("[1,2,3]",
     '[{"jsonrpc": "2.0", "error": {"code": -32600}, "id": null},'
     ' {"jsonrpc": "2.0", "error": {"code": -32600}, "id": null},'
     ' {"jsonrpc": "2.0", "error": {"code": -32600}, "id": null}]'),
    ('[{"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},'
     ' {"jsonrpc": "2.0", "method": "notify_hello", "params": [7]},'
     ' {"jsonrpc": "2.0", "method": "subtract", "params": [42,23], "id": "2"},'
     ' {"foo": "boo"},'
     ' {"jsonrpc": "2.0", "method": "foo.get", "params": {"name": "myself"}, "id": "5"},'
     ' {"jsonrpc": "2.0", "method": "get_data", "id": "9"}]',
     '[{"jsonrpc": "2.0", "result": 7, "id": "1"},'
     ' {"jsonrpc": "2.0", "result": 19, "id": "2"},'
     ' {"jsonrpc": "2.0", "error": {"code": -32600}, "id": null},'
     ' {"jsonrpc": "2.0", "error": {"code": -32601}, "id": "5"},'
     ' {"jsonrpc": "2.0", "result": ["hello", 5], "id": "9"}]'),
]  # fmt: skip

NOTIFICATIONS = [
    '{"jsonrpc": "2.0", "method": "update", "params": [1,2,3,4,5]}',
    '{"jsonrpc": "2.0", "method": "foobar"}',
    '[{"jsonrpc": "2.0", "method": "notify_sum", "params": [1,2,4]},'
    ' {"jsonrpc": "2.0", "method": "notify_hello", "params": [7]}]',
]


@pytest.fixture
def peer(spawn):
    with spawn(INI, spec=MODULE).peer() as peer:
        yield peer


def without_words(reply):
    """The reply with only the code of its errors; a batch in any order, as the text allows."""
    if isinstance(reply, list):
        return sorted((without_words(one) for one in reply), key=json.dumps)
    if "error" in reply:
        reply = {**reply, "error": {"code": reply["error"]["code"]}}
    return reply


def test_every_example_gets_the_specified_reply(peer: Peer):
    for sent, expected in CALLS:
        reply = peer.ask(sent.encode())
        assert without_words(reply) == without_words(json.loads(expected)), sent


def test_notifications_get_no_reply(peer: Peer):
    for sent in NOTIFICATIONS:
        peer.send(sent.encode() + b"\n")
    assert peer.rpc("subtract", [3, 2], "last") == {"jsonrpc": "2.0", "result": 1, "id": "last"}
