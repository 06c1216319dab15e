"""nginx and HAProxy as clients: real processes on free ports of this machine."""

from __future__ import annotations

import shutil
import socket
import subprocess
from pathlib import Path

from .wait import wait_until


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class ProxyProcess:
    """A proxy in the foreground.

    Args:
        folder: for its files.
        config: its configuration, in which PORT stands for `port`, and FOLDER for `folder`.

    Attributes:
        port: of its own.
    """

    program = ""
    command: tuple[str, ...] = ()

    def __init__(self, folder: Path, config: str) -> None:
        assert shutil.which(self.program), f"missing: apt-get install {self.program}"
        self.port = free_port()
        self.address = ("127.0.0.1", self.port)
        text = config.replace("PORT", str(self.port)).replace("FOLDER", str(folder))
        (folder / "proxy.conf").write_text(text)
        self.log = folder / "proxy.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*self.command, str(folder / "proxy.conf")], stdout=log, stderr=log
            )
        try:
            wait_until(self._listens, what=f"{self.program}\n{self.log.read_text()}")
        except BaseException:
            self.close()
            raise

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(self.address) == 0

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(20)


class Haproxy(ProxyProcess):
    program = "haproxy"
    command = ("haproxy", "-db", "-f")


class Nginx(ProxyProcess):
    """With `config` as what stands in its main context."""

    program = "nginx"

    def __init__(self, folder: Path, config: str) -> None:
        self.command = ("nginx", "-p", str(folder), "-e", "stderr", "-c")
        super().__init__(folder, NGINX + config)


NGINX = """
daemon off;
master_process off;
error_log stderr;
pid FOLDER/nginx.pid;
events { worker_connections 64; }
"""
