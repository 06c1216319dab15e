"""A real systemd as process 1 of a namespace of its own, with units of the test's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .spawn import ROOT, descendants, kill
from .wait import SLOWNESS, wait_until

SYSTEMD = "/usr/lib/systemd/systemd"

# Process 1 sees a read-only root with /run, /tmp and /var of its own, and no unit but the test's:
# what a distribution's units do at boot (they empty /tmp, for one) must not be done to this host.
INNER = """
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /mnt
mkdir /mnt/root
mount --bind / /mnt/root
for part in dev sys; do
    mount --rbind /$part /mnt/root/$part
    mount -o remount,bind,ro /mnt/root/$part
done
mount -o remount,bind,ro /mnt/root
mount -t proc proc /mnt/root/proc
mount --bind /mnt/root/proc/sys /mnt/root/proc/sys
mount -o remount,bind,ro /mnt/root/proc/sys
for part in run tmp var dev/shm; do mount -t tmpfs tmpfs /mnt/root/$part; done
for shown in {shown}; do
    mkdir -p /mnt/root/$shown
    mount --bind $shown /mnt/root/$shown
    mount -o remount,bind,ro /mnt/root/$shown
done
mkdir -p /mnt/root/run/systemd/system /mnt/root/tmp/before
cp {units}/* /mnt/root/run/systemd/system/
cd /mnt/root
pivot_root . tmp/before
cd /
umount -l /tmp/before
rmdir /tmp/before
for part in run tmp var; do
    [ "$(stat -f -c %T /$part)" = tmpfs ] || {{ echo "/$part is the host's"; exit 1; }}
done
for part in / /etc /usr /root /dev /sys /proc/sys {shown}; do
    if touch $part/.probe 2>/dev/null; then rm $part/.probe; echo "$part can be written"; exit 1; fi
done
export container=gtask-test SYSTEMD_UNIT_PATH=/run/systemd/system
{init}
"""

BOOT = f"exec {SYSTEMD} --system --unit=test.target --log-target=console --show-status=no"

TARGET = "[Unit]\nDefaultDependencies=no\n"
TARGETS = ("test", "sysinit", "basic", "network", "sockets", "shutdown", "multi-user")

# Only our units are loaded, with empty targets in place of the real ones: those would set up the
# machine again, and systemd-tmpfiles-setup.service empties /tmp, which is not ours.
TARGETS = ("test", "sysinit", "basic", "shutdown", "sockets", "network", "multi-user")


class Machine:
    """A booted systemd.

    Args:
        folder: for its units and its log.
        units: their texts by name.
    """

    def __init__(self, folder: Path, units: dict[str, str], init: str = BOOT) -> None:
        if os.getuid() != 0:
            pytest.fail("needs root to boot a systemd in a namespace: run the tests as root")
        for program in (SYSTEMD, "/usr/bin/nsenter"):
            if not Path(program).exists():
                pytest.fail(f"needs {program}: apt-get install systemd util-linux")
        self._units = folder / "units"
        self._units.mkdir()
        for name, text in ({f"{each}.target": TARGET for each in TARGETS} | units).items():
            (self._units / name).write_text(text)
        hierarchy = Path("/sys/fs/cgroup/systemd")  # where cgroups are of version 1
        base = hierarchy if hierarchy.is_dir() else Path("/sys/fs/cgroup")
        self._group = base / f"gtask-test-{os.getpid()}"
        self._group.mkdir()
        self.log = folder / "systemd.log"
        shown = f"{folder} {ROOT} {os.path.realpath(sys.prefix)}"
        inner = INNER.format(units=self._units, shown=shown, init=init)
        namespaces = [
            "--pid",
            "--fork",
            "--mount-proc",
            "--mount",
            "--uts",
            "--ipc",
            "--cgroup",
            "--kill-child",
        ]
        join = f'echo $$ > {self._group}/cgroup.procs; exec unshare "$@"'
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                ["sh", "-c", join, "sh", *namespaces, "sh", "-c", inner],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        if init == BOOT:
            wait_until(self._is_up, what=f"systemd is up, see {self.log}")

    def _is_up(self) -> bool:
        assert self._process.poll() is None, self.log.read_text()
        return self.systemctl("is-system-running").stdout.strip() in ("running", "degraded")

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command inside."""
        (init, *_) = descendants(self._process.pid) or [self._process.pid]
        return subprocess.run(
            ["nsenter", "-t", str(init), "-m", "-u", "-i", "-p", "-C", *words],
            capture_output=True,
            text=True,
            timeout=60 * SLOWNESS,
            check=False,
        )

    def systemctl(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.run("systemctl", "--no-pager", *words)

    def show(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.systemctl("show", "--property", name, "--value", unit).stdout.strip()

    def close(self) -> None:
        for pid in [*descendants(self._process.pid), self._process.pid]:
            kill(pid)
        self._process.wait()
        wait_until(lambda: not (self._group / "cgroup.procs").read_text().strip())
        for group in sorted(self._group.rglob("*"), reverse=True):
            if group.is_dir():
                group.rmdir()
        self._group.rmdir()


def shipped_unit(name: str, folder: Path, **changes: str) -> str:
    """A unit of conf/systemd, made to run this checkout from `folder`.

    What hides the checkout, the interpreter and `folder` is taken out: the user, whose home they
    are not in, and the private /tmp and /home. All else stays.
    """
    text = (ROOT / "conf/systemd" / name).read_text()
    python = os.path.realpath(sys.prefix) + "/bin/python"  # a link to it may lie in our /tmp
    replaced = {
        "/opt/gtask/bin/gtask-worker": f"{python} -m gtask",
        "WorkingDirectory=/opt/gtask": f"WorkingDirectory={folder}\nEnvironment=PYTHONPATH={ROOT}",
        "/etc/gtask/": f"{folder}/",
        "User=gtask\nGroup=gtask\n": "",
        "ProtectHome=yes": "ProtectHome=no",
        "PrivateTmp=yes": "PrivateTmp=no",
        **changes,
    }
    for old, new in replaced.items():
        assert old in text or name.endswith(".socket") or old in changes, old
        text = text.replace(old, new)
    return text
