"""`gtask-worker`: runs the services of a configuration file, and talks to one that runs.

    gtask-worker -c FILE [start|stop|restart|reload|status|connections|check] [-d] [-g]

Nothing is imported before it is needed, so that `status` answers at once on a busy machine.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

from .version import add_version_option

if TYPE_CHECKING:
    from ..config import Settings
    from ..generation import Generation

DONE, FAILED, NOT_RUNNING = 0, 1, 3

COMMANDS = {
    "start": "run the services, in the foreground unless -d is given",
    "stop": "finish what runs, then end",
    "restart": "stop, then start",
    "reload": "take up changed code and configuration without losing a call",
    "status": "show processes and what they do",
    "connections": "show the connections of all workers",
    "check": "read the file, load the tasks, say all that is wrong; start nothing",
}


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
    except BrokenPipeError:
        # Whoever reads us has seen enough; nothing may be flushed into the closed pipe at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gtask-worker",
        description="Pre-forked gevent workers for slow work.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="commands:\n" + "\n".join(f"  {name:12} {text}" for name, text in COMMANDS.items()),
    )
    parser.add_argument("-c", "--config", metavar="FILE", required=True, help="the INI file")
    parser.add_argument(
        "command", nargs="?", choices=COMMANDS, default="start", metavar="COMMAND", help="see below"
    )
    parser.add_argument("-d", "--daemon", action="store_true", help="start in the background")
    parser.add_argument(
        "-g",
        "--graceful",
        action="store_true",
        help="accepted as in Workerman; stop, restart and reload are graceful in any case",
    )
    parser.add_argument("--json", action="store_true", help="status, connections: print JSON")
    parser.add_argument("--watch", action="store_true", help="status: show it live")
    add_version_option(parser)
    return parser


def _run(options: argparse.Namespace) -> int:
    from ..config import load_settings
    from ..errors import ConfigError

    try:
        settings = load_settings(options.config)
    except ConfigError as error:
        if options.command not in ("stop", "status", "connections"):
            return _complain(os.EX_CONFIG, *error.problems)
        settings = _settings_without_services(options.config)  # what runs can still be talked to
    match options.command:
        case "start":
            return _start(settings, options.daemon)
        case "check":
            return _check(settings)
        case "restart":
            return _restart(settings, options.daemon)
        case "stop":
            return _stop(settings)
        case "reload":
            return _reload(settings)
        case "connections":
            return _connections(settings, options.json)
        case _:
            return _watch(settings) if options.watch else _status(settings, options.json)


def _complain(code: int, *lines: str) -> int:
    for line in lines:
        print(line if code == os.EX_CONFIG else f"gtask-worker: {line}", file=sys.stderr)
    return code


def _settings_without_services(path: str) -> Settings:
    import configparser

    from ..config import Settings

    parser = configparser.ConfigParser(
        interpolation=None, delimiters=("=",), inline_comment_prefixes=(";",), strict=False
    )
    with contextlib.suppress(OSError, ValueError, configparser.Error):
        parser.read(path)
    pid_file = parser.get("gtask", "pid_file", fallback="").strip()
    control = parser.get("gtask", "control", fallback="").strip()
    return Settings(pid_file=pid_file, control=control, file=path)


# -- start and check --------------------------------------------------------------------------


def _start(settings: Settings, is_daemon: bool) -> int:
    from ..config import load_settings
    from ..logs import setup_logging
    from ..master.daemon import daemonize
    from ..master.master import Master

    reporter = None
    if is_daemon:
        try:
            setup_logging(settings)
        except OSError as error:
            problem = f"{settings.file} [gtask] log_file: {error.filename}: {error.strerror}"
            return _complain(os.EX_CONFIG, problem)
        reporter = daemonize()
    master = Master(
        settings,
        _start_mold,
        load=lambda: load_settings(settings.file),
        reporter=reporter,
        is_daemon=is_daemon,
    )
    return master.run()


def _start_mold(generation: Generation) -> int:
    """Runs in the forked mold: only there may the user's code be imported, and gevent."""
    from ..server.mold import run_mold

    return run_mold(generation)


def _check(settings: Settings) -> int:
    from ..logs import setup_logging
    from ..master.molds import try_load

    with contextlib.suppress(OSError):
        setup_logging(settings)
    functions, problems = try_load(settings, _start_mold)
    if problems:
        return _complain(os.EX_CONFIG, *problems)
    for service in settings.services:
        names = ", ".join(functions[service.name])
        print(f"{service.name}: {service.listen}, {service.count} processes: {names}")
    return DONE


# -- talking to the one that runs -------------------------------------------------------------


def _ask(settings: Settings, command: str, timeout: float | None = 10.0) -> dict[str, Any] | None:
    """The master's answer, or None if none runs."""
    from ..master.control import ask

    if not settings.control:
        raise SystemExit(_complain(FAILED, f"{settings.file} [gtask] control: is not set"))
    try:
        return ask(settings.control, command, timeout)
    except (FileNotFoundError, ConnectionRefusedError):
        return None
    except (OSError, EOFError) as error:
        raise SystemExit(
            _complain(FAILED, f"no answer on control socket {settings.control}: {error}")
        ) from error


def _not_running(settings: Settings) -> int:
    return _complain(NOT_RUNNING, f"{settings.file}: not running")


def _stop(settings: Settings) -> int:
    from ..master.pidfile import running_pid

    pid = running_pid(settings.pid_file)
    answer = _ask(settings, "stop", None) if settings.control else None
    if answer is None:
        if not pid:
            return _not_running(settings)
        os.kill(pid, signal.SIGTERM)  # the control socket has been removed, or is not configured
    else:
        pid = answer["pid"]
    _await_end(pid)
    if answer is not None and not answer["ok"]:
        return _complain(FAILED, "stopped; tasks were cut off after stop_timeout")
    print("stopped")
    return DONE


def _await_end(pid: int) -> None:
    import select

    with contextlib.suppress(ProcessLookupError):
        ended = os.pidfd_open(pid)
        select.select([ended], [], [])
        os.close(ended)


def _restart(settings: Settings, is_daemon: bool) -> int:
    running = _ask(settings, "status") if settings.control else None
    is_daemon = is_daemon or (running is not None and running["is_daemon"])
    if _stop(settings) == FAILED:
        print("gtask-worker: starting all the same", file=sys.stderr)
    return _start(settings, is_daemon)


def _reload(settings: Settings) -> int:
    answer = _ask(settings, "reload", None)
    if answer is None:
        return _not_running(settings)
    if not answer["ok"]:
        return _complain(FAILED, answer["message"], *answer.get("problems", ()))
    print(answer["message"])
    return DONE


def _status(settings: Settings, is_json: bool) -> int:
    answer = _ask(settings, "status")
    if answer is None:
        return _not_running(settings)
    if is_json:
        _print_json(answer)
        return DONE
    from .tables import status_table

    print(status_table(answer))
    return DONE


def _watch(settings: Settings) -> int:
    from .tables import status_table

    while (answer := _ask(settings, "status")) is not None:
        height = os.get_terminal_size().lines - 1 if sys.stdout.isatty() else 10**6
        lines = status_table(answer).splitlines()[:height]
        # Home, each line cleared to its end, then the rest of the screen: no flicker.
        print(
            "\x1b[H" + "".join(f"{line}\x1b[K\n" for line in lines) + "\x1b[J", end="", flush=True
        )
        time.sleep(1)
    return _not_running(settings)


def _connections(settings: Settings, is_json: bool) -> int:
    answer = _ask(settings, "connections")
    if answer is None:
        return _not_running(settings)
    if is_json:
        _print_json(answer)
        return DONE
    from .tables import connections_table

    print(connections_table(answer))
    return DONE


def _print_json(answer: dict[str, Any]) -> None:
    import json

    del answer["ok"]
    print(json.dumps(answer, indent=2))
