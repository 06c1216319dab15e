"""Files that this master has made: another's at the same path is not to be removed in their stead."""

from __future__ import annotations

import contextlib
import os


class OwnFile:
    """A file that we have just made.

    Args:
        path: where it is now.

    Raises:
        OSError: it has gone already.
    """

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)
        self._status = os.lstat(self.path)

    def remove(self) -> None:
        """Remove it, unless somebody else has, or has put another one there."""
        with contextlib.suppress(OSError):
            if os.path.samestat(self._status, os.lstat(self.path)):
                os.unlink(self.path)
