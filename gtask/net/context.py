"""`ContextAttribute`: the user's own data on a connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class ContextAttribute:
    """Decorates the method that makes the context of a connection, when it is asked for first.

    In a compiled class it stands for a property, whose deletion there ends the process (mypyc 2.4).
    """

    def __init__(self, make: Callable[[Any], Any]) -> None:
        self._make = make

    def __get__(self, connection: Any, owner: type) -> Any:
        if connection is None:
            return self
        if connection._context is None:
            connection._context = self._make(connection)
        return connection._context

    def __set__(self, connection: Any, value: Any) -> None:
        connection._context = value
