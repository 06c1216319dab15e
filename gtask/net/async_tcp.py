"""`AsyncTcpConnection`: the calling end of a text connection, as in Workerman."""

from __future__ import annotations

import weakref

from .calling import CallingConnection


class AsyncTcpConnection(CallingConnection):
    """Connects to a text service; set its callbacks, `send`, then `connect`.

        task = AsyncTcpConnection("text://127.0.0.1:12345")
        task.send('{"function": "add", "args": [1, 2]}')
        task.on_message = lambda connection, result: connection.close()
        task.connect()

    Args:
        url: ``text://host:port`` or ``text+unix:///path``; the scheme's case is free.
        connect_timeout: seconds until a connect that hangs is told to `on_error`.
        ssl_context: speak TLS, with this context's certificates and checks.

    Raises:
        ValueError: the URL is not of that form.
    """

    __slots__ = ("__weakref__",)  # compiled classes have none: all else is in the base

    def connect(self) -> None:
        """Begin to connect; returns at once. `on_connect` or `on_error`, `on_close` follow.

        While connecting or connected this does nothing.
        """
        _connected.add(self)
        super().connect()


_connected: weakref.WeakSet[AsyncTcpConnection] = weakref.WeakSet()


def close_in_child() -> None:
    """User code has forked this process off: leave what is open to the other."""
    for connection in list(_connected):
        connection.after_fork_in_child()
