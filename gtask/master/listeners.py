"""The listening sockets of all services, over the reloads: which are kept, opened and refused."""

from __future__ import annotations

import grp
import pwd
from collections.abc import Iterable, Mapping, MutableMapping

from ..config import ServiceSettings
from .passed import adopt, in_the_way, take_passed
from .sockets import CannotListen, Listener, listen
from .unixsockets import Owner


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
            self._give_back(opened)
            raise
        self._all += opened
        return found

    def _give_back(self, opened: Iterable[Listener]) -> None:
        """Close those that are ours, and let systemd's be taken another time."""
        for listener in opened:
            if listener.is_ours:
                listener.close()
            else:
                self.passed += [("", each) for each in listener.sockets]

    def _open(self, service: ServiceSettings) -> Listener:
        passed = adopt(self.passed, service.name, service.listen)
        if passed is not None:
            return passed
        try:
            return listen(service.listen, service.backlog, service.socket_mode, _owner(service))
        except CannotListen as error:
            raise CannotListen(f"{error}{self._why_of_ours(service)}") from error

    def _why_of_ours(self, service: ServiceSettings) -> str:
        """What of our own is in the way of an address, to be added to the reason; perhaps nothing."""
        address = service.listen
        if passed := in_the_way(self.passed, address):
            return f"; systemd passes a socket for {passed}: listen there, or change its unit"
        for other in self._all:
            if not address.is_unix and other.bound.port == address.port:
                return f"; {other.bound} is open until this program is restarted"
        return ""

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
                listener.close_in_child()


def _owner(service: ServiceSettings) -> Owner:
    """Whose a unix socket of the service is; as a process that has its user and group makes it."""
    user = pwd.getpwnam(service.user) if service.user else None
    primary = user.pw_gid if user else -1
    group = grp.getgrnam(service.group).gr_gid if service.group else primary
    return Owner(user.pw_uid if user else -1, group)


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
