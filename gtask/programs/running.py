"""The commands that talk to a master that runs: stop, reload, status, connections."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Iterator
from typing import Any, NoReturn

from ..config import Settings
from ..master.control import ask, connect, peer_pid
from ..master.pidfile import running_pid
from ..printable import printable
from ..process import is_master
from .outcome import DONE, FAILED, NOT_RUNNING, Failure
from .tables import connections_table, status_table

ANSWER_SECONDS = 10.0
WATCH_SECONDS = 1.0
LOOK_SECONDS = 0.05


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
    if not settings.control or not _stop_by_control(settings):
        _stop_by_signal(settings)
    print("stopped")
    return DONE


def _stop_by_control(settings: Settings) -> bool:
    """False if nobody listens at the control socket."""
    with _connected(settings, None) as connection:
        if connection is None:
            return False
        with _watched(peer_pid(connection)) as ended:
            answer = _answer(settings, connection, "stop")
            if ended < 0:
                _await_silence(settings)  # it is in another namespace of processes
            else:
                select.select([ended], [], [])
    if not answer["ok"]:
        raise CutOff
    return True


def _stop_by_signal(settings: Settings) -> None:
    """For the control socket has been removed, or is not configured.

    It is the kernel who says which process holds the lock of the pid file. What is written there
    may be the number of a stranger by now, or mean somebody else in our namespace of processes.
    """
    pid = running_pid(settings.pid_file)
    with _watched(pid) as ended:
        if ended < 0 or not is_master(pid) or running_pid(settings.pid_file) != pid:
            raise NotRunning(settings)
        try:
            signal.pidfd_send_signal(ended, signal.SIGTERM)
        except PermissionError:
            raise Failure(FAILED, f"process {pid} belongs to another user") from None
        select.select([ended], [], [])


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
    with _connected(settings, timeout) as connection:
        return None if connection is None else _answer(settings, connection, command)


@contextlib.contextmanager
def _connected(settings: Settings, timeout: float | None) -> Iterator[socket.socket | None]:
    """A connection to the master, or None if none runs."""
    if not settings.control:
        raise Failure(FAILED, f"{settings.file} [gtask] control: is not set")
    try:
        connection = connect(settings.control, timeout)
    except (FileNotFoundError, ConnectionRefusedError):
        yield None
        return
    except OSError as error:
        raise _no_answer(settings, error) from error
    with connection:
        yield connection


def _answer(settings: Settings, connection: socket.socket, command: str) -> dict[str, Any]:
    try:
        return ask(connection, command)
    except (OSError, EOFError, ValueError) as error:
        raise _no_answer(settings, error) from error


def _no_answer(settings: Settings, error: Exception) -> Failure:
    return Failure(FAILED, f"no answer on control socket {settings.control}: {error}")


@contextlib.contextmanager
def _watched(pid: int) -> Iterator[int]:
    """A descriptor that tells when the process has ended; -1 if we do not see it."""
    try:
        ended = os.pidfd_open(pid) if pid > 0 else -1
    except ProcessLookupError:
        ended = -1
    try:
        yield ended
    finally:
        if ended >= 0:
            os.close(ended)


def _await_silence(settings: Settings) -> None:
    """Wait until nobody listens at the control socket."""
    for _ in range(round(ANSWER_SECONDS / LOOK_SECONDS)):
        with contextlib.suppress(Failure), _connected(settings, ANSWER_SECONDS) as connection:
            if connection is None:
                return
        time.sleep(LOOK_SECONDS)


def _as_json(answer: dict[str, Any]) -> str:
    return json.dumps({key: value for key, value in answer.items() if key != "ok"}, indent=2)
