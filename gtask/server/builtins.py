"""The functions that every text service has: `gtask.ping`, `.health`, `.functions`, `.cancel`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import BadArguments, TaskError, UnknownTask
from .engine import Engine
from .execution import Execution


def call_builtin(call: Execution, engine: Engine) -> bytes:
    """The reply to a call of a name that is no task's: one of ours, or unknown."""
    function = BUILTINS.get(call.function)
    if function is None:
        return call.error(UnknownTask(f"unknown function {call.function[:100]!r}"))
    try:
        return call.result(function(call, engine))
    except TaskError as error:
        return call.error(error)


def ping(call: Execution, engine: Engine) -> str:
    """Something answers here."""
    return "pong"


def health(call: Execution, engine: Engine) -> dict[str, Any]:
    """Whether this process is fit for another task."""
    turns, threads = engine.turns, engine.threads
    status = "draining" if engine.is_draining else "busy" if turns.is_full else "ready"
    answer = {
        "status": status,
        "running": turns.running,
        "waiting": turns.waits,
        "concurrency": turns.concurrency,
        "connections": len(engine.connections),
        "threads": {"size": threads.size, "running": threads.running, "stuck": threads.stuck},
    }
    if engine.queues is not None:
        answer["stores"] = engine.queues.health()
    return answer


def functions(call: Execution, engine: Engine) -> list[str]:
    """The names of the tasks."""
    return sorted(engine.tasks)


def cancel(call: Execution, engine: Engine) -> bool:
    """End another call of the same connection; False if there is none of that id."""
    args = call.args
    if type(args) is not dict or args.keys() != {"id"}:
        raise BadArguments('gtask.cancel takes {"id": ...}')
    id = args["id"]
    target = call.connection.find(id) if type(id) in (int, str) else None
    if target is None:
        return False
    engine.limits.cancel(target)
    return True


BUILTINS: dict[str, Callable[[Execution, Engine], Any]] = {
    "gtask.ping": ping,
    "gtask.health": health,
    "gtask.functions": functions,
    "gtask.cancel": cancel,
}
