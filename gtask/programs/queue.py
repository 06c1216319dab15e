"""`gtask-queue`: looks into a queue of durable tasks, and changes what is in it.

gtask-queue URL counts | list | show ID | put FUNCTION … | retry ID… | cancel ID… | purge …
            | pause | resume | check | backup FILE
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from ..errors import STORE_UNAVAILABLE, UNKNOWN_FUNCTION, WORKER_LOST
from ..printable import printable, printable_text
from ..store_address import is_store
from .arguments import HELP, read_arguments, read_json
from .outcome import BAD_CONFIGURATION, CANNOT_CONNECT, DONE, FAILED, stop_printing
from .version import add_version_option

if TYPE_CHECKING:
    from ..errors import TaskError
    from ..queue.queue import Queue

STATES = ("ready", "delayed", "running", "dead", "done", "cancelled", "expired")
PAGE = 500
MESSAGE_CHARACTERS = 4000
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
BY_TEXT = ("counts", "show", "put", "cancel")  # what a text:// URL allows
EPILOG = f"""{HELP}
examples:
  gtask-queue sqlite:///var/lib/gtask/mail.db counts
  gtask-queue sqlite:///var/lib/gtask/mail.db list --state dead
  gtask-queue sqlite:///var/lib/gtask/mail.db retry --all --function send_mail
  gtask-queue sqlite:///var/lib/gtask/mail.db put send_mail to=b@example.org

exit codes:
  0   done
  1   refused, or there is no such id
  2   wrong usage
  75  the store is out of reach
  78  the URL is none
"""


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    # gevent would report a KeyboardInterrupt on standard error; SystemExit it passes on.
    signal.signal(signal.SIGINT, lambda *_: sys.exit(128 + signal.SIGINT))
    from ..errors import TaskError
    from ..queue.queue import Queue

    try:
        queue = Queue(options.url, put_timeout=options.reach)
    except ValueError as error:
        print(f"gtask-queue: {error}", file=sys.stderr)
        return BAD_CONFIGURATION
    if not is_store(options.url) and options.command not in BY_TEXT:
        parser.error(f"{options.command} needs the store's own URL, not a service's")
    try:
        return int(COMMANDS[options.command](queue, options))
    except TaskError as error:
        return _complain(error)
    except ValueError as error:
        parser.error(str(error))
    except BrokenPipeError:
        return stop_printing()
    finally:
        queue.close()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gtask-queue",
        description="Look into a queue of durable tasks, and change what is in it.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=EPILOG,
    )
    parser.add_argument("url", metavar="URL", help="sqlite:///PATH, or text://host:port")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")
    parser.add_argument(
        "--timeout",
        type=float,
        default=15.0,
        dest="reach",
        metavar="S",
        help="seconds to reach the store (15)",
    )
    add_version_option(parser)
    _add_commands(parser)
    return parser


def _add_commands(parser: argparse.ArgumentParser) -> None:
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    common = argparse.ArgumentParser(add_help=False)  # --json may stand behind the command, too
    common.add_argument("--json", action="store_true", default=argparse.SUPPRESS)

    def add(name: str, help: str) -> argparse.ArgumentParser:
        return subparsers.add_parser(name, help=help, parents=[common])

    add("counts", "how many tasks are in which state")
    listing = add("list", "tasks, in the order in which they were put")
    listing.add_argument("--state", choices=STATES)
    listing.add_argument("--function", default="", metavar="F")
    listing.add_argument("--limit", type=int, default=100, metavar="N", help="(100)")
    listing.add_argument("--after", default="", metavar="ID", help="begin behind this one")
    add("show", "all of a task").add_argument("id", metavar="ID")
    putting = add("put", "put a task")
    putting.add_argument("function", metavar="FUNCTION")
    putting.add_argument("arguments", nargs="*", metavar="ARGUMENT")
    for name, kind in OPTIONS.items():
        putting.add_argument(f"--{name}", type=kind, metavar=name.upper())
    retrying = add("retry", "begin dead tasks anew")
    retrying.add_argument("ids", nargs="*", metavar="ID")
    retrying.add_argument("--all", action="store_true", help="all dead ones")
    retrying.add_argument("--function", default="", metavar="F", help="of these, only F's")
    add("cancel", "end tasks").add_argument("ids", nargs="+", metavar="ID")
    purging = add("purge", "forget what has ended")
    purging.add_argument("--state", choices=STATES[3:], required=True)
    purging.add_argument("--older", type=_seconds, required=True, metavar="AGE", help="e.g. 7d")
    add("pause", "begin no task of this queue")
    add("resume", "undo pause")
    add("check", "look the store over")
    add("backup", "write a copy").add_argument("file", metavar="FILE")


def _seconds(age: str) -> float:
    match = re.fullmatch(r"([0-9]+)([smhd])", age)
    if match is None:
        raise argparse.ArgumentTypeError(f"{age!r} is no age, expected e.g. 30m, 12h or 7d")
    return float(int(match[1]) * UNITS[match[2]])


def _complain(error: TaskError) -> int:
    message = printable(" ".join(error.message.split()), MESSAGE_CHARACTERS)
    print(f"gtask-queue: {message}", file=sys.stderr)
    if error.code == UNKNOWN_FUNCTION:
        print("gtask-queue: the service has no store", file=sys.stderr)
    is_out_of_reach = error.code in (STORE_UNAVAILABLE, WORKER_LOST)
    return CANNOT_CONNECT if is_out_of_reach else FAILED


# -- commands -------------------------------------------------------------------------------------


def _counts(queue: Queue, options: argparse.Namespace) -> int:
    counts = queue.counts()
    if options.json:
        print(json.dumps(counts))
        return DONE
    each = {"": counts} if "ready" in counts or not counts else counts
    for name, numbers in each.items():
        if name:
            print(f"queue {name}")
        for key, value in numbers.items():
            print(f"{key:14} {'-' if value is None else value}")
    return DONE


def _list(queue: Queue, options: argparse.Namespace) -> int:
    records = _records(queue, options.state or "", options.function, options.after)
    for number, record in enumerate(islice(records, options.limit)):
        _print_line(record, options.json, is_first=not number)
    return DONE


def _records(
    queue: Queue, state: str = "", function: str = "", after: Any = ""
) -> Iterator[dict[str, Any]]:
    """All records, page by page, as the store looks at some thousands at a time."""
    cursor = after or 0
    while True:
        params = {"state": state, "function": function, "limit": PAGE, "after": cursor}
        page = queue.ask("store.list", params)
        yield from page["tasks"]
        cursor = page["next"]
        if not cursor:
            return


def _print_line(record: dict[str, Any], is_json: bool, is_first: bool) -> None:
    if is_json:
        print(json.dumps(record))
        return
    if is_first:
        print(f"{'id':32} {'state':9} {'priority':8} {'attempt':>7} {'put':19}  function")
    put = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record["enqueued_at"]))
    reason = f" ({record['reason']})" if record["reason"] else ""
    head = f"{record['id']:32} {record['state']:9} {record['priority']:8}"
    what = printable(f"{record['function']}{reason}", MESSAGE_CHARACTERS)
    print(f"{head} {record['attempt']:7} {put}  {what}")


def _show(queue: Queue, options: argparse.Namespace) -> int:
    is_own = is_store(options.url)
    record = queue.ask("store.show" if is_own else "gtask.state", {"id": options.id})
    if "args" in record:
        record["args"] = json.loads(record["args"])
    answer = queue.ask("gtask.result", {"id": options.id})
    record |= {key: answer[key] for key in ("result", "error") if key in answer}
    if options.json:
        print(json.dumps(record))
        return DONE
    for key, value in record.items():
        if key.endswith("_at") and value is not None:
            value = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(value))
        text = printable_text(value) if isinstance(value, str) else json.dumps(value)
        print(f"{key:17} {text}")
    return DONE


def _put(queue: Queue, options: argparse.Namespace) -> int:
    words = options.arguments
    args = read_json(sys.stdin.read()) if words == ["-"] else read_arguments(words)
    given = {name: getattr(options, name) for name in OPTIONS}
    job = queue.put(
        options.function, args, **{key: one for key, one in given.items() if one is not None}
    )
    answer = {"id": job.id, "created": job.created}
    print(json.dumps(answer) if options.json else job.id)
    return DONE


def _retry(queue: Queue, options: argparse.Namespace) -> int:
    if options.all == bool(options.ids):
        raise ValueError("retry takes ids, or --all")
    ids = options.ids
    if options.all:
        ids = [record["id"] for record in _records(queue, "dead", options.function)]
    done = [queue.ask("store.retry", {"id": id}) for id in ids]
    for id, was_dead in zip(ids, done, strict=True):
        if not was_dead:
            print(f"gtask-queue: {id} is not dead", file=sys.stderr)
    _say(options, "retried", sum(done))
    return DONE if all(done) else FAILED


def _cancel(queue: Queue, options: argparse.Namespace) -> int:
    code = DONE
    for id in options.ids:
        answer = queue.ask("gtask.cancel_job", {"id": id})
        print(json.dumps(answer) if options.json else f"{id} {printable(answer['state'])}")
        code = code if answer["cancel_requested"] or answer["state"] == "cancelled" else FAILED
    return code


def _purge(queue: Queue, options: argparse.Namespace) -> int:
    total = 0
    while number := queue.ask("store.purge", {"state": options.state, "older": options.older}):
        total += number
    _say(options, "purged", total)
    return DONE


def _pause(queue: Queue, options: argparse.Namespace) -> int:
    queue.pause()
    _say(options, "paused", True)
    return DONE


def _resume(queue: Queue, options: argparse.Namespace) -> int:
    queue.resume()
    _say(options, "paused", False)
    return DONE


def _check(queue: Queue, options: argparse.Namespace) -> int:
    problems = queue.ask("store.check", {})
    if options.json:
        print(json.dumps({"problems": problems}))
    else:
        print("\n".join(problems) or "all is well")
    return FAILED if problems else DONE


def _backup(queue: Queue, options: argparse.Namespace) -> int:
    size = queue.ask("store.backup", {"path": os.path.abspath(options.file)}, wait=600)
    _say(options, "bytes", size)
    return DONE


def _say(options: argparse.Namespace, what: str, value: Any) -> None:
    print(json.dumps({what: value}) if options.json else f"{what}: {value}")


OPTIONS: dict[str, Any] = {
    "id": str,
    "key": str,
    "delay": float,
    "priority": str,
    "expires": float,
    "retries": int,
    "timeout": float,
    "result_ttl": float,
}
COMMANDS = {
    "counts": _counts,
    "list": _list,
    "show": _show,
    "put": _put,
    "retry": _retry,
    "cancel": _cancel,
    "purge": _purge,
    "pause": _pause,
    "resume": _resume,
    "check": _check,
    "backup": _backup,
}

if __name__ == "__main__":
    sys.exit(main())
