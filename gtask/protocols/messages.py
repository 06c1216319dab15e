"""The dialects of the wire: bare tasks and JSON-RPC 2.0, told apart line by line by their shape.

    {"function": ..., "args": ...}                 bare; answered with the bare result
    {"jsonrpc": "2.0", "method": ..., "id": ...}   JSON-RPC; an array is a batch
    {"method": ..., "id": ...}                     loose: as JSON-RPC, without the member

https://www.jsonrpc.org/specification
"""

from __future__ import annotations

from typing import Any, Final

from ..compiled import mypyc_attr
from ..errors import (
    INVALID_REQUEST,
    BadArguments,
    InvalidRequest,
    ProtocolError,
    TaskError,
)
from .jsontext import dumps

BARE: Final = 0
JSONRPC: Final = 1
LOOSE: Final = 2
NO_ARGS: Final[list[Any]] = []  # never added to

# The heads and tails of replies are joined rather than dumped: it saves a dict and half of the
# encoder's work in each reply.
_HEAD = {JSONRPC: b'{"jsonrpc":"2.0",', LOOSE: b"{"}


@mypyc_attr(allow_interpreted_subclasses=True)
class Call:
    """One call as its caller put it.

    Attributes:
        function: the task's name.
        args: keyword arguments (dict) or positional ones (list).
        id: what the caller named it; None where `is_notification` or for a null id.
        dialect: BARE, JSONRPC or LOOSE.
        is_notification: nobody waits for an answer.
        timeout: seconds the caller allows, or None.
        wants_progress: the caller asked for progress notifications.
    """

    __slots__ = (
        "args",
        "dialect",
        "function",
        "id",
        "is_notification",
        "timeout",
        "wants_progress",
    )

    def __init__(
        self,
        function: str,
        args: dict[str, Any] | list[Any],
        id: str | int | None,
        dialect: int,
        is_notification: bool,
        timeout: float | None = None,
        wants_progress: bool = False,
    ) -> None:
        self.function = function
        self.args = args
        self.id = id
        self.dialect = dialect
        self.is_notification = is_notification
        self.timeout = timeout
        self.wants_progress = wants_progress

    def result(self, value: Any) -> bytes:
        """The reply, without LF, that gives `value` to the caller.

        Raises:
            InternalError: `value` is not JSON.
        """
        if self.dialect == BARE:
            return dumps(value)
        return b'%b"result":%b,"id":%b}' % (_HEAD[self.dialect], dumps(value), dumps(self.id))

    def error(self, error: TaskError) -> bytes:
        """The reply, without LF, that tells the caller of `error`."""
        try:
            body = dumps(error.as_dict())
        except TaskError:  # somebody's `data` is not JSON
            error.data = None
            body = dumps(error.as_dict())
        if self.dialect == BARE:
            return b'{"error":%b}' % body
        return b'%b"error":%b,"id":%b}' % (_HEAD[self.dialect], body, dumps(self.id))


class InvalidCall(Call):
    """A message that is no call: it has an answer, `problem`, and nothing to run."""

    __slots__ = ("problem",)

    def __init__(self, problem: TaskError, id: str | int | None, dialect: int) -> None:
        super().__init__("", [], id, dialect, False)
        self.problem = problem


def read_message(message: Any, kind: type[Call] = Call) -> Call | InvalidCall | list[Any]:
    """Tell what a parsed line asks for.

    Args:
        message: the value of the line.
        kind: the class to make calls of.

    Returns:
        A call, an `InvalidCall`, or for a batch the list of its unread messages.
    """
    if type(message) is not dict:
        if type(message) is list:
            return message if message else _invalid("an empty batch", None, JSONRPC)
        return _invalid("expected an object or an array", None, JSONRPC)
    if "jsonrpc" in message:
        if message["jsonrpc"] != "2.0":
            return _invalid('"jsonrpc" must be "2.0"', _id_of(message), JSONRPC)
        return _read_rpc(message, JSONRPC, kind)
    if "function" in message:
        return _read_bare(message, kind)
    if "method" in message:
        return _read_rpc(message, LOOSE, kind)
    if "id" in message and ("result" in message or "error" in message):
        return _invalid("a reply, where a call is expected", None, JSONRPC)
    return _invalid('expected "function", or "jsonrpc" and "method"', None, BARE)


def _read_bare(message: dict[str, Any], kind: type[Call]) -> Call | InvalidCall:
    function = message["function"]
    if type(function) is not str:
        return _invalid('"function" must be a string', None, BARE)
    args = message.get("args", NO_ARGS)
    if type(args) is not dict and type(args) is not list:
        return InvalidCall(BadArguments('"args" must be an object or an array'), None, BARE)
    timeout = None
    if "timeout" in message:
        timeout = message["timeout"]
        if not is_timeout(timeout):
            return _invalid('"timeout" must be a number of seconds above 0', None, BARE)
    return kind(function, args, None, BARE, False, timeout)


def _read_rpc(message: dict[str, Any], dialect: int, kind: type[Call]) -> Call | InvalidCall:
    method = message.get("method")
    params = message.get("params", NO_ARGS)
    is_notification = "id" not in message
    id = message.get("id")
    if type(id) is not int and type(id) is not str and id is not None:
        return _invalid('"id" must be a string, an integer or null', None, dialect)
    if type(method) is not str:
        return _invalid('"method" must be a string', id, dialect)
    if type(params) is not dict and type(params) is not list:
        return _invalid('"params" must be an object or an array', id, dialect)
    if method == "gtask.call":
        return _read_call(params, id, dialect, is_notification, kind)
    return kind(method, params, id, dialect, is_notification)


def _read_call(
    params: Any, id: str | int | None, dialect: int, is_notification: bool, kind: type[Call]
) -> Call | InvalidCall:
    """`gtask.call`: the task, its arguments and options as one object."""
    try:
        function, args, timeout, progress = _call_params(params)
    except BadArguments as problem:
        if is_notification:
            return kind("", [], None, dialect, True)
        return InvalidCall(problem, id, dialect)
    return kind(function, args, id, dialect, is_notification, timeout, progress)


def _call_params(params: Any) -> tuple[str, Any, float | None, bool]:
    if type(params) is not dict:
        raise BadArguments('gtask.call: "params" must be an object')
    unknown = params.keys() - {"function", "args", "options"}
    function, args, options = (
        params.get("function"),
        params.get("args", NO_ARGS),
        params.get("options", {}),
    )
    if unknown:
        raise BadArguments(f"gtask.call: unexpected {', '.join(sorted(unknown))}")
    if type(function) is not str or function == "gtask.call":
        raise BadArguments('gtask.call: "function" must be the name of a task')
    if type(args) is not dict and type(args) is not list:
        raise BadArguments('gtask.call: "args" must be an object or an array')
    if type(options) is not dict or options.keys() - {"timeout", "progress"}:
        raise BadArguments('gtask.call: "options" may hold "timeout" and "progress"')
    timeout, progress = options.get("timeout"), options.get("progress", False)
    if timeout is not None and not is_timeout(timeout):
        raise BadArguments("gtask.call: timeout must be a number of seconds above 0")
    if type(progress) is not bool:
        raise BadArguments("gtask.call: progress must be true or false")
    return function, args, timeout, progress


def is_timeout(value: Any) -> bool:
    """A number of seconds above 0, as a call may allow."""
    return type(value) in (int, float) and 0 < value < 1e9


def _id_of(message: dict[str, Any]) -> str | int | None:
    id = message.get("id")
    return id if type(id) in (int, str) else None


def _invalid(what: str, id: str | int | None, dialect: int) -> InvalidCall:
    return InvalidCall(InvalidRequest(f"Invalid Request: {what}"), id, dialect)


def protocol_error_reply(error: ProtocolError) -> bytes:
    """The reply to a line that has no shape: an `error` that callers of both dialects find."""
    body = dumps({"code": error.code, "message": error.message})
    return b'{"jsonrpc":"2.0","error":%b,"id":null}' % body


def batch_too_long(limit: int) -> ProtocolError:
    """The error for a batch of more than `limit` messages."""
    return ProtocolError(INVALID_REQUEST, f"Invalid Request: a batch of more than {limit}")


def notification(method: str, params: dict[str, Any]) -> bytes:
    """A JSON-RPC notification, without LF."""
    return b'{"jsonrpc":"2.0","method":%b,"params":%b}' % (dumps(method), dumps(params))
