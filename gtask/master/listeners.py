"""The listening sockets of all services, over the reloads: which are kept, opened and refused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping

from ..config import ServiceSettings
from .passed import adopt, take_passed
from .sockets import CannotListen, Listener, listen


class Listeners:
    """All listening sockets of the master.

    Args:
        environ: where systemd says which sockets it passes.

    Attributes:
        passed: what systemd passes and no service listens on, with the names given there.
    """

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        self._all: list[Listener] = []
        self.passed = take_passed(environ)

    def provide(
        self, services: Iterable[ServiceSettings], present: Mapping[str, Listener]
    ) -> dict[str, Listener]:
        """A listener for each service that has an address, one that we have where it is the same.

        Args:
            present: what the services have now.

        Raises:
            CannotListen: for one of them; those opened for the others are closed again.
        """
        free = list(self._all)
        found: dict[str, Listener] = {}
        opened: list[Listener] = []
        try:
            for service in services:
                if service.listen.is_nowhere:
                    continue  # its tasks come from a store alone
                listener = _take_fitting(free, service, present.get(service.name))
                if listener is None:
                    listener = self._open(service)
                    opened.append(listener)
                found[service.name] = listener
        except CannotListen:
            for listener in opened:
                listener.close()
            raise
        self._all += opened
        return found

    def _open(self, service: ServiceSettings) -> Listener:
        passed = adopt(self.passed, service.name, service.listen)
        return passed or listen(service.listen, service.backlog, service.socket_mode)

    def keep(self, used: Mapping[str, Listener]) -> None:
        """Refuse connections on all but these."""
        for listener in [each for each in self._all if each not in used.values()]:
            self._all.remove(listener)
            listener.refuse()

    def hold_off(self) -> None:
        """Let no new connections begin, before all are refused."""
        for listener in self._all:
            listener.hold_off()

    def close_in_child(self, used: Mapping[str, Listener]) -> None:
        """After a fork: close the child's copies of all but these; the master's stay as they are."""
        for listener in self._all:
            if listener not in used.values():
                listener.socket.close()


def _take_fitting(
    free: list[Listener], service: ServiceSettings, present: Listener | None
) -> Listener | None:
    """Take the first of `free` that the service can go on with."""
    for listener in free:
        if _fits(listener, service, present):
            free.remove(listener)
            return listener
    return None


def _fits(listener: Listener, service: ServiceSettings, present: Listener | None) -> bool:
    """Whether the service may listen on it: the address is the same, and is not "any free port".

    At port 0 it is only the service's present one, as each service has a port of its own there.
    """
    is_fixed = service.listen.port != 0 or service.listen.is_unix
    return listener.address == service.listen and (is_fixed or listener is present)
