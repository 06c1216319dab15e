"""`gtask-call`: calls a task from the shell and prints its result as JSON."""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import shutil
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

from ..errors import WORKER_LOST
from .tls import add_tls_options, tls_context
from .version import add_version_option

if TYPE_CHECKING:
    from gevent.queue import SimpleQueue

    from ..client import Call, TaskClient
    from ..errors import TaskError

DONE, FAILED = 0, 1
NAMED = re.compile(r"([^\W\d][\w.-]*)(:=|=)(.*)", re.DOTALL)

EPILOG = """arguments:
  key=text     a keyword argument, as a string
  key:=JSON    a keyword argument of any type
  JSON         an object or array is all arguments; any other value is the next positional one
  -            all arguments as JSON from standard input

examples:
  gtask-call text://127.0.0.1:12345 send_mail to=b@example.org contents='hi there'
  gtask-call text://127.0.0.1:12345 add 1 2
  echo '{"a": 1}' | gtask-call text://127.0.0.1:12345 f -

exit codes:
  0   done; the result is on standard output
  1   the call failed; why is on standard error
  2   wrong usage
  75  no connection could be made
"""


def main(arguments: list[str] | None = None) -> int:
    """Make the calls; returns the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        args = _read_arguments(options.arguments)
        client = _client(options)
    except ValueError as error:
        parser.error(str(error))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # so is a lone surrogate JSON again
    # gevent would report a KeyboardInterrupt on standard error; SystemExit it passes on.
    signal.signal(signal.SIGINT, lambda *_: sys.exit(128 + signal.SIGINT))
    try:
        return _Caller(client, options, args).run()
    except ValueError as error:  # arguments that are JSON, but too long or such
        parser.error(str(error))
    except BrokenPipeError:
        # Whoever reads us has seen enough; nothing may be flushed into the closed pipe at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    finally:
        client.close()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gtask-call",
        description="Call a task and print its result as JSON.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=EPILOG,
    )
    parser.add_argument("url", metavar="URL", help="e.g. text://127.0.0.1:12345, or several by ','")
    parser.add_argument("function", metavar="FUNCTION")
    parser.add_argument("arguments", nargs="*", metavar="ARGUMENT", help="see below")
    parser.add_argument("--timeout", type=float, metavar="S", help="seconds (60); 0: no limit")
    parser.add_argument("--connect-timeout", type=float, default=5.0, metavar="S", help="(5)")
    parser.add_argument("--retries", type=int, default=0, metavar="N", help="repeat lost calls")
    parser.add_argument("--progress", action="store_true", help="show what the task reports")
    parser.add_argument("--repeat", type=int, default=1, metavar="N", help="call N times")
    parser.add_argument("--parallel", type=int, default=1, metavar="N", help="N of these at once")
    parser.add_argument("--bare", action="store_true", help="for servers without JSON-RPC")
    add_tls_options(parser)
    add_version_option(parser)
    return parser


def _read_arguments(words: list[str]) -> dict[str, Any] | list[Any] | None:
    """The task's arguments as the command line has them.

    Raises:
        ValueError: with what is wrong.
    """
    if words == ["-"]:
        words = [sys.stdin.read()]
        if not isinstance(_parse(words[0]), dict | list):
            raise ValueError("standard input must hold a JSON object or array")
    named: dict[str, Any] = {}
    positional: list[Any] = []
    for word in words:
        match = NAMED.fullmatch(word)
        if match is None:
            positional.append(_parse(word))
        elif match[1] in named:
            raise ValueError(f"{match[1]} is given twice")
        else:
            named[match[1]] = match[3] if match[2] == "=" else _parse(match[3])
    if named and positional:
        raise ValueError("arguments are either all named (key=value) or all positional (JSON)")
    if len(positional) == 1 and isinstance(positional[0], dict | list):
        return positional[0]
    return named or positional or None


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise ValueError(f"{text!r} is neither key=value nor JSON (a string: '\"text\"')") from None


def _client(options: argparse.Namespace) -> TaskClient:
    from ..client import TaskClient

    if options.repeat < 1 or options.parallel < 1:
        raise ValueError("--repeat and --parallel must be 1 or more")
    return TaskClient(
        options.url.split(","),
        timeout=options.timeout,
        retries=options.retries,
        connections=min(options.parallel, 4),
        max_pending=max(options.parallel, 1),
        dialect="bare" if options.bare else "jsonrpc",
        connect_timeout=options.connect_timeout,
        patience=0.0,
        ssl_context=tls_context(options),
    )


class _Caller:
    """Makes the calls one after the other, `--parallel` of them at a time."""

    def __init__(self, client: TaskClient, options: argparse.Namespace, args: Any) -> None:
        self._client = client
        self._options = options
        self._args = args
        self._started = time.monotonic()
        self._failed = 0
        self._code = DONE
        self._bar = _Bar(options.function) if options.progress else None

    def run(self) -> int:
        from gevent.queue import SimpleQueue

        count = left = self._options.repeat
        ended: SimpleQueue[Call] = SimpleQueue()
        for _ in range(min(self._options.parallel, count)):
            self._start(ended)
            left -= 1
        for _ in range(count):
            self._show(ended.get())
            if left:
                self._start(ended)
                left -= 1
        if count > 1:
            seconds = time.monotonic() - self._started
            rate = f"{seconds:.3f} s, {count / seconds:.0f} calls/s"
            print(f"{count} calls, {self._failed} failed, {rate}", file=sys.stderr)
        return self._code

    def _start(self, ended: SimpleQueue[Call]) -> None:
        report = self._bar.show if self._bar else None
        call = self._client.call(self._options.function, self._args, on_progress=report)
        call.rawlink(ended.put)

    def _show(self, call: Call) -> None:
        self._clear()
        if call.error is None:
            print(json.dumps(call.get(), ensure_ascii=False))
        else:
            self._fail(call.error)

    def _clear(self) -> None:
        if self._bar is not None:
            self._bar.clear()

    def _fail(self, error: TaskError) -> None:
        self._failed += 1
        never_sent = isinstance(error.data, dict) and error.data.get("sent") is False
        self._code = os.EX_TEMPFAIL if error.code == WORKER_LOST and never_sent else FAILED
        code = f" ({error.code})" if error.code < 0 else ""
        print(f"gtask-call: {' '.join(error.message.split())}{code}", file=sys.stderr)


class _Bar:
    """Progress on standard error: a bar on a terminal, else a line for each report."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._is_terminal = sys.stderr.isatty()
        self._is_shown = False

    def show(self, done: Any, total: Any, note: Any) -> None:
        """Take one report."""
        count = f"{done}/{total}" if total else f"{done}"
        if not self._is_terminal:
            print(f"{self._name}: {count} {note or ''}".rstrip(), file=sys.stderr, flush=True)
            return
        width = shutil.get_terminal_size().columns - 1
        bar = self._draw(done, total) if _is_number(done) and _is_number(total) and total else ""
        sys.stderr.write(f"\r\x1b[K{f'{self._name} {bar}{count} {note or str()}'[:width]}")
        sys.stderr.flush()
        self._is_shown = True

    def clear(self) -> None:
        """Remove the bar from the terminal."""
        if self._is_shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._is_shown = False

    def _draw(self, done: float, total: float) -> str:
        filled = round(30 * min(max(done / total, 0.0), 1.0))
        return f"[{'#' * filled}{'.' * (30 - filled)}] "


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


if __name__ == "__main__":
    sys.exit(main())
