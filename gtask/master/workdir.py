"""The working directory: where its name leads to may change, and a reload follows.

Releases are often directories of their own, and a link says which is served: /srv/app/current. The
kernel only knows the directory that this led to when the program was started; $PWD, which shells set
and a systemd unit may, has the name.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping


class WorkingDirectory:
    """The one that we were started in.

    Args:
        environ: the environment, for its PWD.

    Raises:
        OSError: it has been removed.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        try:
            os.getcwd()
        except OSError:
            raise FileNotFoundError(errno.ENOENT, "has been removed", "working directory") from None
        name = environ.get("PWD", "")
        self._name = name if os.path.isabs(name) and _is_here(name) else ""

    def follow(self) -> None:
        """Change to where its name leads to now, if it has one.

        Raises:
            OSError: to nowhere.
        """
        if self._name:
            os.chdir(self._name)


def _is_here(path: str) -> bool:
    try:
        return os.path.samefile(path, ".")
    except (OSError, ValueError):
        return False
