"""The Python that benchmarks run with, and what the machine is."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

from .servers import BUILD, ROOT, python_of


def enter() -> None:
    """Go on with a Python that has gevent: this one, or an environment made for it."""
    sys.path.append(str(ROOT))
    try:
        for name in ("gevent", "msgspec", "ujson", "gevent-websocket"):
            importlib.metadata.version(name)
        return
    except importlib.metadata.PackageNotFoundError:
        python = BUILD / "venv/bin/python"
    if sys.executable == str(python):
        raise SystemExit(f"{python.parents[1]} is incomplete: remove it")
    if not python.exists():
        print(f"making {python.parents[1]}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", python.parents[1]], check=True)
        install(python, "-e", f"{ROOT}")
    os.execv(python, [str(python), *sys.argv])


def install(python: Path, *packages: str) -> None:
    """Install into the environment of `python`."""
    pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    subprocess.run([*pip, *packages], check=True)


def describe() -> str:
    """The machine and the versions, as lines of Markdown."""
    return "\n".join(f"- {line}" for line in (_machine(), _kernel(), ", ".join(_versions())))


def describe_checkout(checkout: Path) -> str:
    """The gtask and the Python of another checkout."""
    code = (
        "import platform; from gtask import __version__; from gtask.compiled import how; "
        "print(f'gtask {__version__} {how()}, Python {platform.python_version()}')"
    )
    done = subprocess.run(
        [python_of(checkout), "-c", code],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return f"- against {checkout.name}: {done.stdout.strip()}"


def _machine() -> str:
    info = Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*: (.*)", info, re.M)
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    name = model[1] if model else platform.machine()
    return f"{name}, {os.cpu_count()} processors, {pages / 2**30:.0f} GiB of memory"


def _kernel() -> str:
    return f"{platform.system()} {platform.release()}, {platform.machine()}"


def _versions() -> list[str]:
    from gtask import __version__
    from gtask.compiled import how

    told = [f"gtask {__version__} {how()}", f"Python {platform.python_version()}"]
    for name in ("gevent", "greenlet", "msgspec", "ujson", "gevent-websocket"):
        told.append(f"{name} {importlib.metadata.version(name)}")
    gcc = subprocess.run(["gcc", "-dumpfullversion"], capture_output=True, text=True, check=False)
    told.append(f"gcc {gcc.stdout.strip()}")
    folder = os.environ.get("WORKERMAN_DIR")
    if folder:
        worker = Path(folder, "src/Worker.php").read_text()
        version = re.search(r"VERSION = '([^']*)'", worker)
        php = subprocess.run(
            ["php", "-r", "echo PHP_VERSION;"], capture_output=True, text=True, check=False
        )
        told.append(f"Workerman {version[1] if version else '?'}, PHP {php.stdout}")
    return told
