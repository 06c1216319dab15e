"""`gtask-worker`: runs the services of a configuration file, and talks to one that runs.

    gtask-worker -c FILE [start|stop|restart|reload|status|connections|check] [-d] [-g]

What only some commands need is imported by them, so that `status` answers at once on a busy
machine.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
from typing import TYPE_CHECKING

from ..config import Settings, find_master, load_settings
from ..errors import ConfigError
from ..printable import printable
from ..streams import open_standard_streams
from . import running
from .outcome import BAD_CONFIGURATION, DONE, FAILED, Failure, print_any_text, stop_printing
from .version import add_version_option

if TYPE_CHECKING:
    from ..config import StoreSettings
    from ..generation import Generation
    from ..store_board import StoreBoard

LINE_CHARACTERS = 4000

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
    open_standard_streams()
    print_any_text()
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
    except Failure as failure:
        return _complain(failure)
    except BrokenPipeError:
        return stop_printing()
    except OSError as error:  # no process, descriptor or memory is left
        return _complain(Failure(FAILED, str(error)))
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
    settings = _settings(options)
    match options.command:
        case "start":
            return _start(settings, options.daemon)
        case "check":
            return _check(settings)
        case "restart":
            return _restart(settings, options.daemon)
        case "stop":
            return running.stop(settings)
        case "reload":
            return running.reload(settings)
        case "connections":
            return running.connections(settings, options.json)
        case _:
            if options.watch:
                running.watch(settings)
            return running.status(settings, options.json)


def _settings(options: argparse.Namespace) -> Settings:
    try:
        return load_settings(options.config)
    except ConfigError as error:
        if options.command in ("stop", "status", "connections"):
            return find_master(options.config)  # which may run all the same
        raise Failure(BAD_CONFIGURATION, *error.problems) from None


def _complain(failure: Failure) -> int:
    """Say why; what is wrong with a file begins with its name, all else with ours."""
    prefix = "" if failure.code == BAD_CONFIGURATION else "gtask-worker: "
    for line in failure.lines:
        print(prefix + printable(line, LINE_CHARACTERS), file=sys.stderr)
    return failure.code


def _start(settings: Settings, is_daemon: bool) -> int:
    from ..logs.hooks import install_hooks
    from ..logs.setup import setup_logging
    from ..master.daemon import daemonize
    from ..master.master import Master

    install_hooks()
    reporter = None
    if is_daemon and os.getpid() == 1:
        raise Failure(FAILED, "-d: a container ends with its process 1, so start it without")
    if is_daemon:
        try:
            setup_logging(settings)
        except OSError as error:
            problem = f"{settings.file} [gtask] log_file: {error.filename}: {error.strerror}"
            raise Failure(BAD_CONFIGURATION, problem) from None
        reporter = daemonize()
    master = Master(
        settings,
        _start_mold,
        start_store=_start_store,
        load=lambda: load_settings(settings.file),
        reporter=reporter,
        is_daemon=is_daemon,
    )
    return master.run()


def _start_mold(generation: Generation) -> int:
    """Runs in the forked mold: only there may the user's code be imported, and gevent."""
    from ..server.mold import run_mold

    return run_mold(generation)


def _start_store(settings: StoreSettings, board: StoreBoard, master: int) -> int:
    """Runs in the forked process of a store; only there may gevent be imported."""
    from ..server.stores import run_store

    return run_store(settings, board, master)


def _check(settings: Settings) -> int:
    from ..logs.setup import setup_logging
    from ..master.trial import try_load

    with contextlib.suppress(OSError):
        setup_logging(settings)
    functions, problems = try_load(settings, _start_mold)
    if problems:
        raise Failure(BAD_CONFIGURATION, *problems)
    for service in settings.services:
        names = ", ".join(functions[service.name])
        print(f"{service.name}: {service.place}, {service.count} processes: {names}")
    return DONE


def _restart(settings: Settings, is_daemon: bool) -> int:
    is_daemon = is_daemon or running.is_daemon(settings)
    try:
        running.stop(settings)
    except running.NotRunning as failure:
        _complain(failure)
    except running.CutOff as failure:
        _complain(failure)
        print("gtask-worker: starting all the same", file=sys.stderr)
    return _start(settings, is_daemon)
