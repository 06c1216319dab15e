"""`Lobby`: where connections wait that were accepted and not read, for any process of a service.

It is a pair of unix sockets that the master makes and all workers hold, over all reloads: a message
is one connection, unix(7), and the kernel keeps them in order. So what a full process has accepted, the first one that
has a turn again takes, as it would from the listen queue.
"""

from __future__ import annotations

import _socket
import array
import marshal
from typing import Any

MESSAGE_BYTES = 512  # an address
FD_BYTES = 4


class Lobby:
    """One process's hold on it.

    Args:
        ends: of the pair.
    """

    def __init__(self, ends: tuple[Any, Any]) -> None:
        self._in, self._out = ends

    def close(self) -> None:
        """Let go of it; the others go on."""
        self._in.close()
        self._out.close()

    def put(self, client: Any, address: Any) -> bool:
        """Leave a connection there, and close it here; False if there is no room."""
        fds = array.array("i", [client.fileno()])
        rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, fds)]
        try:
            self._in.sendmsg([marshal.dumps(address)], rights, _socket.MSG_DONTWAIT)
        except OSError:
            return False
        client.close()
        return True

    def take(self) -> tuple[Any, Any] | None:
        """The connection that has been there longest, and its peer's address; None if there is none."""
        flags = _socket.MSG_DONTWAIT | _socket.MSG_CMSG_CLOEXEC
        try:
            data, rights, _, _ = self._out.recvmsg(
                MESSAGE_BYTES, _socket.CMSG_SPACE(FD_BYTES), flags
            )
        except OSError:
            return None
        if not rights:
            return None
        fds = array.array("i", rights[0][2][:FD_BYTES])
        return _socket.socket(fileno=fds[0]), marshal.loads(data)
