"""What a mold changes in Python so that tasks may use the standard library, beyond what gevent changes.

gevent's patches are made for one native thread. Here is what tasks in native threads
(`@task(blocking=True)`), child processes, and scripts that import before they are patched need, too.
The law: code in a native thread without a hub has the operating system's functions, code in one with
a hub has gevent's, and locks and queues are for both at once.
"""

from __future__ import annotations

_is_done = False


def patch_all() -> None:
    """Patch the standard library, once; what a script has patched in its own way stays so."""
    global _is_done
    from gevent import monkey

    if _is_done:
        return
    _is_done = True
    if not monkey.is_module_patched("socket"):
        monkey.patch_all(os=False, signal=False)
    from . import children, locks, pipes, sockets, subprocesses, threads, waiting

    children.install()
    if monkey.is_module_patched("threading"):
        locks.install()
        threads.install()
    sockets.install()
    if monkey.is_module_patched("subprocess"):
        subprocesses.install()
    waiting.install()
    pipes.install()
