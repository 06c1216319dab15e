"""Which world code runs in: gevent's where its native thread has a hub, else the system's."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from gevent import monkey
from gevent._hub_local import get_hub_if_exists
from greenlet import getcurrent


def by_thread(green: Callable[..., Any], native: Callable[..., Any]) -> Callable[..., Any]:
    """A function that is `green` in threads with a hub, and `native` in those without."""

    @functools.wraps(native)
    def choose(*args: Any, **kwargs: Any) -> Any:
        function = native if get_hub_if_exists() is None else green
        return function(*args, **kwargs)

    return choose


def may_wait() -> bool:
    """We are in a greenlet, and its hub can go on meanwhile."""
    hub = get_hub_if_exists()
    return hub is not None and getcurrent() is not hub


def put(owner: Any, **names: Any) -> None:
    """Replace attributes of a module or a class, whatever its types say."""
    for name, value in names.items():
        setattr(owner, name, value)


def original(module: str, name: str) -> Any:
    """What a name of the standard library stood for before gevent's patches."""
    return monkey.get_original(module, name)
