"""`gtask-call`: calls a task from the shell and prints its result as JSON."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from typing import TYPE_CHECKING, Any, NoReturn

from ..errors import WORKER_LOST
from ..printable import printable, printable_json
from .arguments import HELP, read_arguments, read_json, seconds, split_words
from .outcome import CANNOT_CONNECT, DONE, FAILED, USAGE, print_any_text, stop_printing
from .printing import OutputLost, complain, is_unicode, open_streams, read_input, write
from .progress import ProgressBar
from .tls import add_tls_options, tls_context
from .version import add_version_option

if TYPE_CHECKING:
    from gevent.queue import SimpleQueue

    from ..client import Call, TaskClient
    from ..errors import TaskError

EPILOG = f"""{HELP}
examples:
  gtask-call text://127.0.0.1:12345 send_mail to=b@example.org contents='hi there'
  gtask-call text://127.0.0.1:12345 add 1 2
  echo '{{"a": 1}}' | gtask-call text://127.0.0.1:12345 f -

exit codes:
  0   done; the result is on standard output
  1   the call failed; why is on standard error
  2   wrong usage
  75  no connection could be made
"""

MESSAGE_CHARACTERS = 4000


def main(arguments: list[str] | None = None) -> int:
    """Make the calls; returns the exit code."""
    open_streams()
    parser = _parser()
    front, words = split_words(arguments if arguments is not None else sys.argv[1:], parser)
    options = parser.parse_args(front)
    print_any_text()
    try:
        given = read_json(read_input()) if words == ["-"] else read_arguments(words)
        client = _client(options)
    except ValueError as error:
        _misused(error)
    # gevent would report a KeyboardInterrupt on standard error; SystemExit it passes on.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        return _Caller(client, options, given).run()
    except ValueError as error:  # arguments that are JSON, but too long or such
        _misused(error)
    except BrokenPipeError:
        return stop_printing()
    except OutputLost as error:
        complain(f"gtask-call: {error}")
        return FAILED
    finally:
        client.close()


def _misused(error: ValueError) -> NoReturn:
    complain(f"gtask-call: error: {printable(error, MESSAGE_CHARACTERS)}")
    sys.exit(USAGE)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gtask-call",
        description="Call a task and print its result as JSON.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=EPILOG,
        allow_abbrev=False,
    )
    parser.add_argument("url", metavar="URL", help="e.g. text://127.0.0.1:12345, or several by ','")
    parser.add_argument("function", metavar="FUNCTION")
    parser.add_argument("arguments", nargs="*", metavar="ARGUMENT", help="see below")
    parser.add_argument("--timeout", type=seconds, metavar="S", help="seconds (60); 0: no limit")
    parser.add_argument("--connect-timeout", type=seconds, default=5.0, metavar="S", help="(5)")
    parser.add_argument("--retries", type=int, default=0, metavar="N", help="repeat lost calls")
    parser.add_argument("--progress", action="store_true", help="show what the task reports")
    parser.add_argument("--repeat", type=int, default=1, metavar="N", help="call N times")
    parser.add_argument("--parallel", type=int, default=1, metavar="N", help="N of these at once")
    parser.add_argument("--bare", action="store_true", help="for servers without JSON-RPC")
    add_tls_options(parser)
    add_version_option(parser)
    return parser


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
    """Makes `--repeat` calls, `--parallel` of them at a time."""

    def __init__(self, client: TaskClient, options: argparse.Namespace, given: Any) -> None:
        self._client = client
        self._options = options
        self._given = given
        self._started = time.monotonic()
        self._failed = 0
        self._code = DONE
        self._bar = ProgressBar(options.function) if options.progress else None

    def run(self) -> int:
        """Make them all; returns the exit code, that of the last failure if there was one."""
        from gevent.queue import SimpleQueue

        count = self._options.repeat
        parallel = min(self._options.parallel, count)
        ended: SimpleQueue[Call] = SimpleQueue()
        for _ in range(parallel):
            self._start(ended)
        for number in range(parallel, parallel + count):
            self._show(ended.get())
            if number < count:
                self._start(ended)
        if count > 1:
            seconds = time.monotonic() - self._started
            rate = f"{seconds:.3f} s, {count / seconds:.0f} calls/s"
            complain(f"{count} calls, {self._failed} failed, {rate}")
        return self._code

    def _start(self, ended: SimpleQueue[Call]) -> None:
        report = self._bar.show if self._bar else None
        call = self._client.call(self._options.function, self._given, on_progress=report)
        call.rawlink(ended.put)

    def _show(self, call: Call) -> None:
        if self._bar is not None:
            self._bar.clear()
        if call.error is None:
            self._print(call.get())
        else:
            self._fail(call.error)

    def _print(self, result: Any) -> None:
        try:
            line = json.dumps(result, ensure_ascii=not is_unicode())
        except (RecursionError, ValueError) as error:  # deeper than the encoder goes
            raise OutputLost(f"the result cannot be shown: {error}") from None
        write(printable_json(line))

    def _fail(self, error: TaskError) -> None:
        self._failed += 1
        never_sent = isinstance(error.data, dict) and error.data.get("sent") is False
        self._code = CANNOT_CONNECT if error.code == WORKER_LOST and never_sent else FAILED
        code = f" ({error.code})" if error.code < 0 else ""
        message = printable(" ".join(error.message.split()), MESSAGE_CHARACTERS)
        complain(f"gtask-call: {message}{code}")


if __name__ == "__main__":
    sys.exit(main())
