"""`gtask-call` as a shell runs it."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys

import pytest

from ..support.spawn import ROOT
from ..support.wait import SLOWNESS, wait_until
from .test_client import INI, TASKS
from .test_haproxy import free_port

COMMAND = [sys.executable, str(ROOT / "bin" / "gtask-call")]


@pytest.fixture(scope="module")
def server(module_spawn):
    server = module_spawn(INI.format(count=2), things=TASKS)
    server.expects_traceback = True
    return server


@pytest.fixture(scope="module")
def url(server):
    return server.url()


def call(*words, stdin=""):
    """Exit code, what was printed, and what was said on standard error."""
    done = subprocess.run(
        [*COMMAND, *words],
        input=stdin,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=30 * SLOWNESS,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("words", "stdin", "result"),
    [
        (["add", "1", "2"], "", 3),
        (["add", "a:=1", "b:=2"], "", 3),
        (["add", "a=x", "b=y"], "", "xy"),
        (["add", "[1, 2]"], "", 3),
        (["add", '{"a": "x", "b": "y=z"}'], "", "xy=z"),
        (["add", "-"], '{"a": 1.5, "b": 2}', 3.5),
        (["add", "-"], "[[1], [2]]", [1, 2]),
        (["echo", "value=작업=완료"], "", "작업=완료"),
        (["echo", "value="], "", ""),
        (["echo", 'value:={"a": null}'], "", {"a": None}),
        (["echo", '"a=b"'], "", "a=b"),
        (["add", "-1", "-2e3"], "", -2001.0),
        (["add", "--timeout", "5", "-1", "--", "-2"], "", -3),
        (["add", "a=-x", "b=--bare"], "", "-x--bare"),
        (["gtask.ping"], "", "pong"),
        (["echo", "value=x", "--timeout", "5", "--bare"], "", "x"),
    ],
)
def test_arguments_and_results(url, words, stdin, result):
    code, output, complaint = call(url, *words, stdin=stdin)
    assert (code, complaint) == (0, "")
    assert output.count("\n") == 1
    assert json.loads(output) == result


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["nope"], "gtask-call: unknown function 'nope' (-32601)\n"),
        (["add", "1"], "gtask-call: add: missing b (-32602)\n"),
        (["fail"], "gtask-call: ValueError: 값\n"),
    ],
)
def test_failures_are_one_line_and_exit_1(url, words, complaint):
    assert call(url, *words) == (1, "", complaint)


def test_a_call_whose_time_is_over_is_one_line_too(url):
    code, output, complaint = call(url, "nap", "30", "--timeout", "0.2")
    assert (code, output, complaint.count("\n")) == (1, "", 1)
    # Here or there: both keep the time.
    assert re.fullmatch(
        r"gtask-call: nap: (no result in time|timed out after \S+ s) \(-32001\)", complaint.strip()
    )


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["add", "1", "b=2"], "either all named (key=value) or all positional"),
        (["add", "a=1", "a=2"], "a is given twice"),
        (["add", "hello"], "'hello' is neither key=value nor JSON"),
        (["add", "a:=x"], "'x' is neither key=value nor JSON"),
        (["add", "--timeout", "-3"], "timeout must be a number"),
        (["add", "--repeat", "0"], "1 or more"),
        (["add", "--key", "x"], "--key needs --cert"),
        (["add", "--cafile", "/nonexistent"], "/nonexistent: No such file"),
        (["echo", r'"\ud800"'], "arguments are not JSON text"),
        (["echo", "[" * 100_000], "is nested too deeply"),
        (["echo", "x" * 100_000], "x'... is neither key=value nor JSON"),
    ],
)
def test_wrong_usage_exits_2(url, words, complaint):
    code, output, error = call(url, *words)
    assert (code, output) == (2, "")
    assert complaint in error


def test_wrong_urls_exit_2():
    assert call("127.0.0.1:1", "f")[0] == 2
    assert call("websocket://127.0.0.1:1", "f")[0] == 2


def test_no_connection_exits_75_at_once():
    code, output, error = call(f"text://127.0.0.1:{free_port()}", "f", "--connect-timeout", "20")
    assert (code, output) == (75, "")
    assert error.endswith("Connection refused (-32004)\n")
    assert error.count("\n") == 1


def test_the_second_of_two_endpoints_is_used(url):
    dead = f"text://127.0.0.1:{free_port()}"
    assert call(f"{dead},{url}", "add", "1", "2")[:2] == (0, "3\n")


def test_repeat(url):
    code, output, error = call(url, "echo", "7", "--repeat", "500", "--parallel", "20")
    assert (code, output) == (0, "7\n" * 500)
    assert error.startswith("500 calls, 0 failed, ")
    code, output, error = call(url, "fail", "--repeat", "3")
    assert (code, output) == (1, "")
    assert "3 calls, 3 failed" in error


def test_progress_without_a_terminal_is_lines(url):
    code, output, error = call(url, "count", "3", "--progress")
    assert (code, output) == (0, "3\n")
    assert error == "count: 1/3 step 1\ncount: 2/3 step 2\ncount: 3/3 step 3\n"


def test_progress_on_a_terminal_is_a_bar(url):
    master, terminal = pty.openpty()
    done = subprocess.run(
        [*COMMAND, url, "count", "4", "--progress"],
        stdout=subprocess.PIPE,
        stderr=terminal,
        timeout=30 * SLOWNESS,
        check=False,
    )
    os.close(terminal)
    shown = b""
    while True:
        try:
            data = os.read(master, 65536)
        except OSError:  # Linux says EIO at the end
            break
        shown += data
    os.close(master)
    assert (done.returncode, done.stdout) == (0, b"4\n")
    text = shown.decode()
    assert f"[{'#' * 15}{'.' * 15}] 2/4 step 2" in text
    assert text.endswith("\r\x1b[K"), "the bar is removed at the end"


def test_a_reader_that_has_seen_enough(url):
    command = f"{' '.join(COMMAND)} {url} echo 1 --repeat 20000 --parallel 50 | head -n 1"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "1\n"
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("stdin", "complaint"),
    [
        (b"[" * 1_000_000, "is nested too deeply"),
        (b'{"a":' * 1_000_000, "is nested too deeply"),
        (b"x" * 1_000_000, "is neither key=value nor JSON"),
        (b"[1" + b"0" * 10_000 + b"]", "is neither"),
        (b'"\xff\xfe"', "not JSON in UTF-8"),
        (b"", "is neither"),
        (b"1", "object or array"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(url, stdin, complaint):
    done = subprocess.run(
        [*COMMAND, url, "echo", "-"], input=stdin, capture_output=True, timeout=60, check=False
    )
    error = done.stderr.decode()
    assert (done.returncode, done.stdout, error.count("\n")) == (2, b"", 1)
    assert complaint in error
    assert len(error) < 1000


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le"])
def test_input_in_other_encodings(url, encoding):
    done = subprocess.run(
        [*COMMAND, url, "echo", "-"],
        input='["작업 😀"]'.encode(encoding),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, json.loads(done.stdout)) == (0, "작업 😀")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "euc-kr", "utf-8"])
def test_output_in_other_encodings_is_json(url, encoding):
    done = subprocess.run(
        [*COMMAND, url, "echo", "value=작업 😀"],
        env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert json.loads(done.stdout.decode(encoding)) == "작업 😀"


@pytest.mark.parametrize(
    ("streams", "code", "output", "error"),
    [
        ("<&-", 0, "7\n", ""),
        ("2>&-", 0, "7\n", ""),
        (">&-", 1, "", "gtask-call: standard output is closed\n"),
        (">/dev/full", 1, "", "gtask-call: standard output: No space left on device\n"),
        ("2>/dev/full", 0, "7\n", ""),
        ("<&- >&- 2>&-", 1, "", ""),
        (">/dev/full 2>/dev/full", 1, "", ""),
    ],
)
def test_standard_streams_that_are_closed_or_full(url, streams, code, output, error):
    command = f"{' '.join(COMMAND)} {url} echo 7 {streams}"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (code, output, error)


def test_a_failure_that_nobody_can_be_told_of(url):
    for streams in ("2>&-", "2>/dev/full"):
        command = f"{' '.join(COMMAND)} {url} nope {streams}"
        assert subprocess.run(["bash", "-c", command], timeout=60, check=False).returncode == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c(server, url, tmp_path, number):
    process = subprocess.Popen(
        [*COMMAND, url, "slow_cancel", f"path={tmp_path}/ended"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: server.status()["services"][0]["running"])
    process.send_signal(number)
    output, error = process.communicate(timeout=20 * SLOWNESS)
    assert (process.returncode, output, error) == (128 + number, "", "")
    wait_until((tmp_path / "ended").exists)
