"""The commands that talk to a master that runs: stop, reload, status, connections."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import time
from typing import Any, NoReturn

from ..config import Settings
from ..master.control import ask
from ..master.pidfile import running_pid
from ..printable import printable
from .outcome import DONE, FAILED, NOT_RUNNING, Failure
from .tables import connections_table, status_table

ANSWER_SECONDS = 10.0
WATCH_SECONDS = 1.0


class NotRunning(Failure):
    """There is no master to talk to."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(NOT_RUNNING, f"{settings.file}: not running")


class CutOff(Failure):
    """It has stopped, but not all of its tasks were done."""

    def __init__(self) -> None:
        super().__init__(FAILED, "stopped; tasks were cut off after stop_timeout")


def stop(settings: Settings) -> int:
    """Have it drain, and wait until it has ended.

    Raises:
        NotRunning, CutOff: so it is.
        Failure: it does not answer.
    """
    pid = running_pid(settings.pid_file)
    answer = _ask(settings, "stop", None) if settings.control else None
    if answer is not None:
        pid = answer["pid"]
    elif pid:
        os.kill(pid, signal.SIGTERM)  # the control socket has been removed, or is not configured
    else:
        raise NotRunning(settings)
    _await_end(pid)
    if answer is not None and not answer["ok"]:
        raise CutOff
    print("stopped")
    return DONE


def reload(settings: Settings) -> int:
    """Have it take up changed code and configuration, and wait until it has.

    Raises:
        NotRunning: so it is.
        Failure: it goes on as it was.
    """
    answer = _demand(settings, "reload", None)
    if not answer["ok"]:
        raise Failure(FAILED, answer["message"], *answer.get("problems", ()))
    print(printable(answer["message"]))
    return DONE


def status(settings: Settings, is_json: bool) -> int:
    """Show its processes."""
    answer = _demand(settings, "status")
    print(_as_json(answer) if is_json else status_table(answer))
    return DONE


def watch(settings: Settings) -> NoReturn:
    """Show its processes again and again, until it has ended."""
    while True:
        table = status_table(_demand(settings, "status"))
        height = os.get_terminal_size().lines - 1 if sys.stdout.isatty() else None
        lines = "".join(f"{line}\x1b[K\n" for line in table.splitlines()[:height])
        # Home, each line cleared to its end, then the rest of the screen: no flicker.
        print(f"\x1b[H{lines}\x1b[J", end="", flush=True)
        time.sleep(WATCH_SECONDS)


def connections(settings: Settings, is_json: bool) -> int:
    """Show the connections of its workers."""
    answer = _demand(settings, "connections")
    print(_as_json(answer) if is_json else connections_table(answer))
    return DONE


def is_daemon(settings: Settings) -> bool:
    """Whether one runs, and in the background."""
    answer = _ask(settings, "status") if settings.control else None
    return answer is not None and bool(answer["is_daemon"])


def _demand(
    settings: Settings, command: str, timeout: float | None = ANSWER_SECONDS
) -> dict[str, Any]:
    """The master's answer.

    Raises:
        NotRunning: so it is.
        Failure: it does not answer.
    """
    answer = _ask(settings, command, timeout)
    if answer is None:
        raise NotRunning(settings)
    return answer


def _ask(
    settings: Settings, command: str, timeout: float | None = ANSWER_SECONDS
) -> dict[str, Any] | None:
    """The master's answer, or None if none runs.

    Raises:
        Failure: it does not answer.
    """
    if not settings.control:
        raise Failure(FAILED, f"{settings.file} [gtask] control: is not set")
    try:
        return ask(settings.control, command, timeout)
    except (FileNotFoundError, ConnectionRefusedError):
        return None
    except (OSError, EOFError) as error:
        where = f"control socket {settings.control}"
        raise Failure(FAILED, f"no answer on {where}: {error}") from error


def _await_end(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        ended = os.pidfd_open(pid)
        select.select([ended], [], [])
        os.close(ended)


def _as_json(answer: dict[str, Any]) -> str:
    return json.dumps({key: value for key, value in answer.items() if key != "ok"}, indent=2)
