"""What Linux knows of a process: its title, its memory, and how it is tied to its parent."""

from __future__ import annotations

import ctypes
import functools
import os
import signal

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_NAME = 15
PR_SET_CHILD_SUBREAPER = 36

MASTER_TITLE = "gtask: master"

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

_libc = ctypes.CDLL(None, use_errno=True)


def adopt_orphans() -> None:
    """Become the parent of our children's children when their parent ends, prctl(2).

    Raises:
        OSError: the kernel refuses.
    """
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def die_with(parent: int) -> None:
    """Have the kernel kill this process when `parent` ends; ends it now if that has happened.

    To be called again after the user has changed, which makes the kernel forget it.
    """
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def open_own_proc() -> None:
    """Let this process read what /proc tells of itself, which the kernel closes with the user."""
    _prctl(PR_SET_DUMPABLE, 1)


def set_title(text: str) -> None:
    """Show `text` in `ps`, cut to the room that the command line has, and a short form in `top`.

    The command line lies on the stack where the kernel put it, and may be written over. That needs
    no package, and nothing imported in a hundred workers.
    """
    start, room = _title_room()
    if room > 0:
        ctypes.memmove(start, _title(text)[: room - 1].ljust(room, b"\0"), room)
    _prctl(PR_SET_NAME, _title(_short(text))[:15])


def _title(text: str) -> bytes:
    return text.encode(errors="surrogateescape")  # a file may have a name that is no UTF-8


def _short(text: str) -> str:
    return text.replace(": ", ":").replace(" ", "-")


def is_master(pid: int) -> bool:
    """The process calls itself a master of gtask's, or there is no /proc that would tell."""
    for name, begin in (("cmdline", MASTER_TITLE), ("comm", _short(MASTER_TITLE))):
        try:
            with open(f"/proc/{pid}/{name}", errors="replace") as file:
                if file.read().startswith(begin):
                    return True
        except OSError:
            return not os.path.exists("/proc/self")
    return False


def resident_bytes(pid: int) -> int:
    """Resident memory of a process, pages that it shares with others included; 0 if it has ended."""
    try:
        with open(f"/proc/{pid}/statm") as statm:
            return int(statm.read().split()[1]) * _PAGE_BYTES  # `resident` in proc_pid_statm(5)
    except (OSError, IndexError):
        return 0


@functools.cache
def _title_room() -> tuple[int, int]:
    """The address of the command line in our memory, and its length in bytes; (0, 0) if unknown.

    A fork copies the memory, so what was found in a parent holds in its children, and is looked up
    once for all of them.
    """
    try:
        with open("/proc/self/stat") as stat:
            fields = stat.read().rpartition(")")[2].split()
        start, end = int(fields[45]), int(fields[46])  # arg_start, arg_end: 48 and 49 in proc(5)
    except (OSError, ValueError, IndexError):
        return 0, 0  # the process then keeps the title it has, which harms nothing
    return start, end - start if start else 0


def _prctl(option: int, value: int | bytes) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"prctl: {os.strerror(error)}")
