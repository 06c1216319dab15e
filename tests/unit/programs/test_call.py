"""`gtask-call`: the calls it makes, and the exit code they end in."""

from __future__ import annotations

import json

import pytest

from gtask.errors import TaskFailed, WorkerLost
from gtask.programs import call

URL = "text://127.0.0.1:1"


class FakeCall:
    def __init__(self, outcome) -> None:
        self.error = outcome if isinstance(outcome, Exception) else None
        self._outcome = outcome

    def rawlink(self, ended) -> None:
        ended(self)

    def get(self):
        return self._outcome


class FakeClient:
    """Ends each call at once, with the next of some outcomes."""

    def __init__(self, outcomes) -> None:
        self.outcomes = iter(outcomes)
        self.calls = []

    def call(self, function, arguments, on_progress):
        self.calls.append((function, arguments))
        if on_progress is not None:
            on_progress(1, 2, "half")
        return FakeCall(next(self.outcomes))


def run(outcomes, *words) -> tuple[int, FakeClient]:
    client = FakeClient(outcomes)
    options = call._parser().parse_args([URL, "f", *words])
    return call._Caller(client, options, [1]).run(), client


def test_the_result_is_printed_as_json(capsys):
    code, client = run([{"a": "작업"}])
    assert (code, client.calls) == (0, [("f", [1])])
    assert capsys.readouterr().out == '{"a": "작업"}\n'


def test_a_result_gives_no_orders_to_the_terminal(capsys):
    assert run([{"a": "\x1b[2J\x9b\u202e"}])[0] == 0
    assert capsys.readouterr().out == '{"a": "\\u001b[2J\\u009b\\u202e"}\n'


@pytest.mark.parametrize("parallel", ["1", "2", "9"])
def test_repeated_calls_are_counted(capsys, parallel):
    code, client = run([1, 2, 3], "--repeat", "3", "--parallel", parallel)
    assert (code, len(client.calls)) == (0, 3)
    printed = capsys.readouterr()
    assert printed.out == "1\n2\n3\n"
    assert printed.err.startswith("3 calls, 0 failed, ")


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (TaskFailed("ValueError: a\nb", {}), 1, "gtask-call: ValueError: a b"),
        (TaskFailed("\x1b[2J\x9b\u202e", {}), 1, r"gtask-call: \x1b[2J\x9b\u202e"),
        (WorkerLost("lost", {"sent": True}), 1, "gtask-call: lost (-32004)"),
        (WorkerLost("nobody", {"sent": False}), 75, "gtask-call: nobody (-32004)"),
    ],
)
def test_how_a_call_fails(capsys, error, code, said):
    assert run([error])[0] == code
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", f"{said}\n")


def test_a_failure_among_others_is_the_outcome(capsys):
    assert run([TaskFailed("bad", {}), 2], "--repeat", "2")[0] == 1
    assert "2 calls, 1 failed" in capsys.readouterr().err


def test_progress_is_shown_on_request(capsys):
    run([1], "--progress")
    assert capsys.readouterr().err == "f: 1/2 half\n"


@pytest.mark.parametrize(
    "words",
    [
        [],
        [URL],
        ["h:1", "f"],
        [URL, "f", "words"],
        [URL, "f", "--repeat", "0"],
        [URL, "f", "--parallel", "0"],
        [URL, "f", "--key", "k.pem"],
        [URL, "f", "--timeout", "-1"],
    ],
)
def test_wrong_usage(words):
    with pytest.raises(SystemExit) as ended:
        call.main(words)
    assert ended.value.code == 2


def test_what_the_options_make_of_the_client():
    options = call._parser().parse_args([URL + ",text://h:2", "f", "--parallel", "9", "--bare"])
    client = call._client(options)
    assert [str(each) for each in client.endpoints] == [URL, "text://h:2"]
    assert client._options.connections == 4
    assert client._options.max_pending == 9
    assert client._options.dialect == "bare"
    client.close()


def test_arguments_come_from_standard_input(monkeypatch):
    given = []
    monkeypatch.setattr("sys.stdin.read", lambda: json.dumps({"a": 1}), raising=False)
    monkeypatch.setattr(call, "_Caller", lambda client, options, args: given.append(args) or Done())
    monkeypatch.setattr(call.signal, "signal", lambda *_: None)
    assert call.main([URL, "f", "-"]) == 0
    assert given == [{"a": 1}]


class Done:
    def run(self) -> int:
        return 0
