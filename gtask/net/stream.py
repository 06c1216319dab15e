"""A non-blocking stream on the hub: bytes in by `_received`, bytes out by `_write`.

The read watcher stays started as long as the stream is open, and reads when the loop says so:
gevent's own `recv` tries, fails, starts a watcher, switches and stops it for each call, which is
most of its cost. Nothing here blocks and nothing here runs user code.
"""

from __future__ import annotations

import _socket
import ssl
from enum import IntEnum
from typing import Any, Final

from ..compiled import mypyc_attr
from ..native import unacknowledged_bytes
from ..protocols.tls import TlsFilter
from .debts import Debtor
from .lingerer import Lingerer
from .outbox import Outbox
from .reactor import Reactor

READ: Final = 1
WRITE: Final = 2
READ_BYTES: Final = 65536
PEEK: Final = _socket.MSG_PEEK
DONT_WAIT: Final = _socket.MSG_DONTWAIT  # saves the ioctl that would make each socket non-blocking


class StreamState(IntEnum):
    """The life of a stream; it only ever moves down."""

    INITIAL = 0
    CONNECTING = 1
    OPEN = 2
    FLUSHING = 3  # close was asked for; what is buffered still goes out
    CLOSED = 4


# Names of the module are found faster than attributes of an enum.
CLOSED: Final = StreamState.CLOSED
FLUSHING: Final = StreamState.FLUSHING
OPEN: Final = StreamState.OPEN


@mypyc_attr(allow_interpreted_subclasses=True)
class Stream(Debtor):
    """Base of every connection.

    Subclasses implement `_received(data)`, `_ended()` (the peer sends no more), `_flushed()`
    and `_closed(reason)`, which is called exactly once. All of them run in the hub or in the
    greenlet that called `_write` or `_close`, and must not block.

    Attributes:
        state: see `StreamState`.
        bytes_read, bytes_written: octets on the socket.
    """

    __slots__ = (
        "_linger",
        "_output",
        "_reactor",
        "_reader",
        "_socket",
        "_tls",
        "_writer",
        "bytes_read",
        "bytes_written",
        "state",
    )

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        self._socket: Any = None
        self._reader: Any = None
        self._writer: Any = None
        self._output: Outbox | None = None  # never empty
        self._tls: TlsFilter | None = None
        self._linger = False
        self.bytes_read = 0
        self.bytes_written = 0
        self.state = StreamState.INITIAL

    # -- for subclasses to implement ----------------------------------------------------------

    def _received(self, data: bytes) -> None:
        raise NotImplementedError

    def _ended(self) -> None:
        raise NotImplementedError

    def _flushed(self) -> None:
        """The output buffer has become empty."""

    def _progressed(self) -> None:
        """The kernel has taken more of the output buffer."""

    def _secured(self) -> None:
        """The TLS handshake is over."""

    def _insecure(self, reason: str) -> None:
        """The peer is no TLS peer, or not one that is trusted."""
        self._abort(reason)

    def _closed(self, reason: str) -> None:
        raise NotImplementedError

    # -- for subclasses to call ---------------------------------------------------------------

    def _open(self, socket: Any, tls: TlsFilter | None = None) -> None:
        """Take over a connected socket and read from it."""
        self._socket = socket
        self._tls = tls
        self.state = OPEN
        self._watch()

    def _open_calling(self, socket: Any, context: ssl.SSLContext | None, host: str) -> None:
        """As `_open`, at the end that has called; with a context, begin a TLS handshake.

        Args:
            host: whose certificate the peer has to show; empty on a unix socket.

        Raises:
            ValueError: no certificate can have that name; the socket is closed.
        """
        if context is None:
            self._open(socket)
            return
        try:
            tls = TlsFilter(context, server_side=False, server_hostname=host or None)
        except ValueError:
            socket.close()
            raise
        self._open(socket, tls)
        tls.start()
        self._write_raw(tls.take_output())

    def _watch(self) -> None:
        """Have `_readable` called when there is something to read, until `_unwatch`."""
        reader = self._reader = self._reactor.loop.io(self._socket.fileno(), READ)
        reader.start(self._readable)

    def _unwatch(self) -> None:
        if self._reader is not None:
            self._reader.stop()
            self._reader.close()
            self._reader = None

    def _pause(self) -> None:
        if self._reader is not None:
            self._reader.stop()

    def _resume(self) -> None:
        if self._reader is not None and self.state is OPEN:
            self._reader.start(self._readable)

    @property
    def _buffered(self) -> int:
        """Octets that the kernel has not taken yet."""
        waiting = self._output.size if self._output is not None else 0
        return waiting if self._tls is None else waiting + self._tls.waiting_bytes

    @property
    def _is_mid_record(self) -> bool:
        """The beginning of a TLS handshake or record has come, and the rest has not."""
        return self._tls is not None and self._tls.is_mid_record

    def _write(self, data: bytes | bytearray) -> None:
        if self._tls is not None:
            self._tls.send(data)
            data = self._tls.take_output()
        self._write_raw(data)

    def _close(self, reason: str, *, linger: bool = False) -> None:
        """Close once all output is with the kernel.

        Args:
            reason: for `_closed`.
            linger: the peer may still be sending; read and drop that for a while, since closing
                a socket with unread input resets it, and the peer loses our last words.
        """
        if self.state >= FLUSHING:
            return
        self.state = FLUSHING
        self._linger = linger
        self._pause()
        if self._tls is not None:
            self._tls.close()
            self._write_raw(self._tls.take_output())
        if self._output is None:
            self._abort(reason)

    def _abort(self, reason: str) -> None:
        """Close now; what is buffered is lost."""
        if self.state is CLOSED:
            return
        linger = self._linger and self._output is None
        self.state = CLOSED
        if self._output is not None or self._tls is not None:
            self._reactor.debts.forget(self)
            self._output = None
        if self._writer is not None:
            self._writer.stop()
            self._writer.close()
            self._writer = None
        socket, self._socket = self._socket, None
        if socket is not None:
            self._unwatch()
            if linger:
                Lingerer(self._reactor, socket)
            else:
                socket.close()
        self._closed(reason)

    def after_fork_in_child(self) -> None:
        """User code has forked this process off: leave the connection to the other, which has it."""
        self.state = CLOSED
        self._output = None
        socket, self._socket = self._socket, None
        if socket is not None:
            socket.close()

    # -- the hub's callbacks ------------------------------------------------------------------

    def _readable(self) -> int:
        """Read once; returns how many octets that gave."""
        try:
            data: bytes = self._socket.recv(READ_BYTES, DONT_WAIT)
        except BlockingIOError:
            return 0
        except OSError as error:
            self._abort(_reason(error))
            return 0
        size = len(data)
        if not size:
            self._pause()
            self._ended()
            return 0
        self.bytes_read += size
        if self._tls is not None:
            plain = self._decrypt(data)
            if plain is None:
                return size
            data = plain
        self._received(data)
        return size

    def _decrypt(self, data: bytes) -> bytes | None:
        tls = self._tls
        assert tls is not None
        was_established = tls.is_established
        try:
            plain = tls.receive(data)
        except ssl.SSLError as error:
            self._write_raw(tls.take_output())  # the alert that says why
            self._insecure(f"TLS: {_tls_reason(error)}")
            return None
        output = tls.take_output()
        if output:
            self._write_raw(output)
        if tls.is_established and not was_established:
            self._secured()
        return plain if self.state is OPEN and plain else None

    def _write_raw(self, data: bytes | bytearray) -> None:
        output = self._output
        if output is not None:
            output.append(data)
            self._reactor.debts.owes_taking(self, output.size, self.bytes_written)
            return
        try:
            sent: int = self._socket.send(data, DONT_WAIT)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._abort(_reason(error))
            return
        self.bytes_written += sent
        if sent < len(data):
            output = self._output = Outbox(data, sent)
            self._reactor.debts.owes_taking(self, output.size, self.bytes_written)
            if self._writer is None:
                self._writer = self._reactor.loop.io(self._socket.fileno(), WRITE)
            self._writer.start(self._writable)

    def _writable(self) -> None:
        output = self._output
        assert output is not None
        try:
            sent = self._socket.send(output.front(), DONT_WAIT)
        except BlockingIOError:
            return
        except OSError as error:
            self._abort(_reason(error))
            return
        self.bytes_written += sent
        output.drop(sent)
        self._reactor.debts.owes_taking(self, output.size, self.bytes_written)
        self._progressed()
        if output.size:
            return
        self._output = None
        self._writer.stop()
        if self.state is FLUSHING:
            self._abort("closed here")
        else:
            self._flushed()

    # -- what it is asked as a debtor ----------------------------------------------------------

    def _sent_bytes(self) -> int:
        if self._output is not None:
            self._writable()
        if self._socket is None:
            return self.bytes_written
        # A slow peer may leave the kernel's buffer full for a long time.
        return self.bytes_written - unacknowledged_bytes(self._socket.fileno())

    def _must_take(self) -> bool:
        return self.state is FLUSHING  # before that, it is the caller who knows how long to wait

    def _is_read(self) -> bool:
        return True

    def _has_unread(self) -> bool:
        """Whether the kernel holds something, or the end, that the loop has not come to yet."""
        if self._socket is None:
            return False
        try:
            self._socket.recv(1, PEEK | DONT_WAIT)
        except BlockingIOError:
            return False
        except OSError:
            pass  # the end, too
        return True

    def _is_secured(self) -> bool:
        return self._tls is None or self._tls.is_established

    def _give_up(self, reason: str, is_full: bool) -> None:
        self._abort(reason)


def _tls_reason(error: ssl.SSLError) -> str:
    """In words; the reason of a refused certificate is in a field of its own."""
    why = getattr(error, "verify_message", "")
    return f"{error.reason}: {why}" if why else str(error.reason or error)


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__
