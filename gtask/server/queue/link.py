"""`Link`: a worker's connection to the process that owns its store, made anew whenever it is lost.

Nothing is lost with the connection: the worker goes on with what it runs, tells the ends when there is one again, and both sides
compare what the worker holds.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

from ...address import Address
from ...errors import StoreUnavailable, TaskError
from ...logs.loggers import get_logger
from ...net.connector import Connector
from ...net.reactor import Reactor
from ...queue.line import Line
from ...queue.notices import Notices
from ...queue.wire import notification_line, request_line
from ...store_address import StoreAddress

log = get_logger("gtask.store")

CONNECT_SECONDS = 5.0
FIRST_PAUSE_SECONDS = 0.02
MAX_PAUSE_SECONDS = 1.0
QUIET_PAUSES = 6  # attempts that fail before it is told: the store's process may be starting

Then = Callable[[Any], None]


class Link:
    """Requests with answers, and notifications both ways. Hub only.

    Args:
        store: the address of the store.
        opened: called when there is a new connection, and before anything else is sent.
        received: gets the method and the parameters of each notification.

    Attributes:
        is_up: requests are taken.
    """

    def __init__(
        self,
        reactor: Reactor,
        store: StoreAddress,
        opened: Callable[[], None],
        received: Callable[[str, dict[str, Any]], None],
    ) -> None:
        self.store = store
        self.is_up = False
        self._reactor = reactor
        self._address = Address("text", path=store.socket_path)
        self._opened = opened
        self._received_notification = received
        self._notices = Notices(log, store.store)
        self._line: Line | None = None
        self._connector: Connector | None = None
        self._timer: Any = None
        self._is_closed = self._is_teller = False
        self._failures = 0
        self._ids = count(1)
        self._asked: dict[int, Then] = {}

    def start(self, is_teller: bool) -> None:
        """Connect, and go on doing so until `close`.

        Args:
            is_teller: the operator is told of trouble; one process of a service does that for all.
        """
        self._is_teller = is_teller
        self._connect()

    def _connect(self) -> None:
        if not self._is_closed:
            self._connector = Connector(
                self._reactor, self._address, CONNECT_SECONDS, self._connected, self._failed
            )
            self._connector.start()

    def ask(self, method: str, params: Any, then: Then) -> int:
        """Make a request; `then` gets the result or the `TaskError`. Returns its number."""
        if self._line is None:
            data = {"reason": "unreachable", "accepted": "no"}
            then(StoreUnavailable(f"the store {self.store.store} cannot be reached", data))
            return 0
        id = next(self._ids)
        self._asked[id] = then
        self._line.send(request_line(id, method, params))
        return id

    def forget(self, id: int) -> None:
        """Nobody waits for the answer to that request any more."""
        if self._asked.pop(id, None) is not None:
            self.tell("gtask.cancel", id=id)

    def tell(self, method: str, **params: Any) -> None:
        """Send a notification; it is lost where there is no connection."""
        if self._line is not None:
            self._line.send(notification_line(method, **params))

    def not_joined(self, error: TaskError) -> None:
        """The store cannot take this process up now: try again in a while."""
        log.debug("the store does not take this process up: %s", error.message)
        self._timer = self._reactor.loop.timer(MAX_PAUSE_SECONDS / 2)
        self._timer.start(self._join_again, self._line)

    def _join_again(self, line: Line) -> None:
        self._stop_timer()
        if line is self._line:
            self._opened()

    def flush(self) -> None:
        """Send now what was to be sent soon."""
        if self._line is not None:
            self._line.flush()

    def close(self) -> None:
        """Connect no more."""
        self._is_closed = True
        self._stop_timer()
        if self._connector is not None:
            self._connector.cancel()
        if self._line is not None:
            self._line.flush()
            self._line.close()

    def after_fork_in_child(self) -> None:
        """This is a child that a task has forked: the connection is the worker's."""
        self._is_closed = True
        if self._line is not None:
            self._line.after_fork_in_child()

    # -- the hub's callbacks ------------------------------------------------------------------

    def _connected(self, socket: Any) -> None:
        self._connector = None
        line = self._line = Line(self._reactor, self._received, self._lost)
        line.open(socket)
        self._opened()

    def joined(self) -> None:
        """The store has taken this process up."""
        self.is_up = True
        self._failures = 0
        self._notices.well()

    def _failed(self, why: str) -> None:
        self._connector = None
        self._try_again(why)

    def _lost(self, line: Line) -> None:
        if line is not self._line:
            return
        self._line = None
        self.is_up = False
        asked, self._asked = self._asked, {}
        data = {"reason": "unreachable", "accepted": "unknown"}
        for then in asked.values():
            then(StoreUnavailable("the connection to the store has ended", data))
        if not self._is_closed:
            self._try_again("the connection has ended")

    def _try_again(self, why: str) -> None:
        pause = min(MAX_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(self._failures, 10))
        self._failures += 1
        if self._failures > QUIET_PAUSES and self._is_teller:
            self._notices.trouble("unreachable", f"cannot be reached at its socket: {why}")
        self._stop_timer()
        self._timer = self._reactor.loop.timer(pause)
        self._timer.start(self._start_again, update=True)

    def _start_again(self) -> None:
        self._stop_timer()
        self._connect()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()
            self._timer = None

    def _received(self, line: Line, message: Any) -> None:
        if "method" in message:
            self._received_notification(message["method"], message["params"])
            return
        then = self._asked.pop(message.get("id"), None)
        if then is not None:
            is_error = "error" in message
            then(TaskError.from_dict(message["error"]) if is_error else message.get("result"))
