"""`Logger`: what gtask logs with, everywhere. Nothing ever depends on a call of it.

A call never raises, waits for no handler, filter or lock of the user's, and never switches to
another greenlet, so it may be made in the hub. Levels, handlers and filters are those of the
standard library's logger of the same name; its `disabled` is not obeyed, since a user's
`dictConfig` sets it without being asked to.
"""

from __future__ import annotations

import logging

from .delivery import complain, deliver
from .records import make_record


class Logger:
    """Get one by `get_logger`. Its methods are those of `logging.Logger`."""

    __slots__ = ("_standard",)

    def __init__(self, name: str) -> None:
        self._standard = logging.getLogger(name)

    def is_enabled_for(self, level: int) -> bool:
        """Whether records of the level go anywhere; asked without a lock."""
        standard = self._standard
        return standard.manager.disable < level >= standard.getEffectiveLevel()

    def log(
        self,
        level: int,
        message: str,
        *args: object,
        exc_info: object = None,
        stacks: str = "",
        keeps_lines: bool = False,
    ) -> None:
        """Log a message; the further arguments are those of `make_record`."""
        try:
            if self.is_enabled_for(level):
                name = self._standard.name
                record = make_record(name, level, message, args, exc_info, stacks, keeps_lines)
                deliver(self._standard, record)
        except Exception as error:  # whatever it is, what was to be logged is done and stays so
            complain("a record", error)

    def debug(self, message: str, *args: object, exc_info: object = None) -> None:
        self.log(logging.DEBUG, message, *args, exc_info=exc_info)

    def info(self, message: str, *args: object, exc_info: object = None) -> None:
        self.log(logging.INFO, message, *args, exc_info=exc_info)

    def warning(self, message: str, *args: object, exc_info: object = None) -> None:
        self.log(logging.WARNING, message, *args, exc_info=exc_info)

    def error(self, message: str, *args: object, exc_info: object = None) -> None:
        self.log(logging.ERROR, message, *args, exc_info=exc_info)

    def exception(self, message: str, *args: object) -> None:
        """An error, with the exception that is handled now."""
        self.log(logging.ERROR, message, *args, exc_info=True)


def get_logger(name: str) -> Logger:
    """The logger of a module of gtask's; `name` is that of the standard library's."""
    return Logger(name)
