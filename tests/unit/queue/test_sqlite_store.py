"""The SQLite store: what every store does, and what a file on a disk may do to it."""

from __future__ import annotations

import os
import shutil
import sqlite3
from pathlib import Path

import pytest

from gtask.errors import BadArguments, StoreUnavailable
from gtask.queue import operations as ops
from gtask.queue.records import Limits, NewTask
from gtask.queue.sqlite.files import StoreLock, file_system
from gtask.queue.sqlite.store import SqliteStore, write_copy

from .conformance import *  # noqa: F403


class SqliteUnderTest:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.now = 1_800_000_000_000
        self._open()

    def _open(self) -> None:
        limits = Limits(max_waiting=10, max_dead=3)
        self.store = SqliteStore(str(self.path), limits=limits, clock=lambda: self.now)
        self.apply = self.store.apply

    def reopen(self) -> None:
        self.store.close()
        self._open()


@pytest.fixture
def store(tmp_path):
    made = SqliteUnderTest(tmp_path / "file.db")
    yield made
    made.store.close()


def put(id: str) -> ops.Put:
    return ops.Put("default", NewTask(id, "work", b"[]"))


def reason(caught) -> str:
    return caught.value.data["reason"]


def ids_in(path: Path) -> set[str]:
    store = SqliteStore(str(path))
    records, _ = store.apply([ops.Listing("default")]).outcomes[0]
    store.close()
    return {record["id"] for record in records}


def test_a_log_that_is_cut_anywhere_loses_nothing_but_what_was_not_acknowledged(tmp_path):
    path = tmp_path / "file.db"
    store = SqliteStore(str(path))
    wal = tmp_path / "file.db-wal"
    sizes = []
    for number in range(4):
        store.apply([put(f"t{number}")])
        sizes.append(wal.stat().st_size)
    copies = tmp_path / "copies"
    copies.mkdir()
    data, log = path.read_bytes(), wal.read_bytes()
    store.close()
    for length in [*range(0, len(log), 509), *sizes, *(size - 1 for size in sizes)]:
        (copies / "file.db").write_bytes(data)
        (copies / "file.db-wal").write_bytes(log[:length])
        acknowledged = {f"t{number}" for number, size in enumerate(sizes) if size <= length}
        if sizes[0] <= length:
            assert acknowledged <= ids_in(copies / "file.db")
        for file in copies.iterdir():
            file.unlink()


def test_another_version_is_refused(tmp_path):
    path = tmp_path / "file.db"
    SqliteStore(str(path)).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 2")
    connection.close()
    with pytest.raises(StoreUnavailable, match="version 2") as caught:
        SqliteStore(str(path))
    assert reason(caught) == "version"


def test_another_programs_database_is_refused(tmp_path):
    path = tmp_path / "file.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE mine (x)")
    connection.close()
    with pytest.raises(StoreUnavailable) as caught:
        SqliteStore(str(path))
    assert reason(caught) == "version"


def test_what_is_no_database_is_refused(tmp_path):
    path = tmp_path / "file.db"
    path.write_bytes(b"something else entirely" * 1000)
    with pytest.raises(StoreUnavailable) as caught:
        SqliteStore(str(path))
    assert reason(caught) == "corrupt"


def test_a_file_that_another_program_locks(tmp_path):
    path = tmp_path / "file.db"
    store = SqliteStore(str(path))
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable) as caught:
        store.apply([put("a")])
    assert reason(caught) == "locked"
    other.execute("ROLLBACK")
    other.close()
    assert store.apply([put("a")]).outcomes[0][2]
    store.close()


@pytest.mark.parametrize("how", ["removed", "replaced"])
def test_a_file_that_is_taken_away(tmp_path, how):
    path = tmp_path / "file.db"
    store = SqliteStore(str(path))
    store.apply([put("a")])
    path.unlink()
    if how == "replaced":
        path.touch()
    with pytest.raises(StoreUnavailable) as caught:
        store.apply([put("b")])
    assert reason(caught) == "moved"
    assert caught.value.data["accepted"] == "no"
    store.close()


def test_a_disk_that_is_full(tmp_path):
    store = SqliteStore(str(tmp_path / "file.db"))
    store.apply([put("a")])
    pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
    store._connection.execute(f"PRAGMA max_page_count = {pages}")
    long = ops.Put("default", NewTask("b", "work", b'"%b"' % (b"x" * 100_000)))
    with pytest.raises(StoreUnavailable) as caught:
        store.apply([long])
    assert reason(caught) == "disk_full"
    assert [one["id"] for one in store.apply([ops.Listing("default")]).outcomes[0][0]] == ["a"]
    assert store.apply([ops.Check()]).outcomes == [[]]
    store.close()


def test_a_failed_transaction_leaves_the_counts_as_they_were(tmp_path, monkeypatch):
    store = SqliteStore(str(tmp_path / "file.db"))
    store.apply([put("a")])

    def fail() -> None:
        raise sqlite3.ProgrammingError

    with monkeypatch.context() as patch:
        patch.setattr(store._ledger, "write", fail)
        with pytest.raises(StoreUnavailable):
            store.apply([put("b")])
    assert store.apply([ops.Counts()]).outcomes[0]["default"]["ready"] == 1
    assert store.apply([ops.Check()]).outcomes == [[]]
    store.close()


def test_the_files_have_the_mode_whatever_the_umask(tmp_path):
    before = os.umask(0o077)
    try:
        store = SqliteStore(str(tmp_path / "file.db"), mode=0o660)
        store.apply([put("a")])
        modes = {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()}
    finally:
        os.umask(before)
    assert modes == dict.fromkeys(("file.db", "file.db-wal", "file.db-shm"), 0o660)
    store.close()


def test_the_log_is_copied_before_it_is_long(tmp_path, monkeypatch):
    store = SqliteStore(str(tmp_path / "file.db"))
    for number in range(3000):
        store.apply([put(f"t{number}")])
        store.tidy()
    assert (tmp_path / "file.db-wal").stat().st_size < 4000 * 4120
    store.close()
    assert not (tmp_path / "file.db-wal").exists()


def test_a_backup_holds_everything(tmp_path):
    store = SqliteStore(str(tmp_path / "file.db"))
    store.apply([put("a")])
    assert write_copy(store.path, str(tmp_path / "copy.db")) > 0
    assert ids_in(tmp_path / "copy.db") == {"a"}
    assert isinstance(write_copy(store.path, str(tmp_path / "copy.db")), BadArguments)
    store.close()


def test_one_holds_the_lock_at_a_time(tmp_path):
    path = str(tmp_path / "file.db")
    one, other = StoreLock(path, 0o600), StoreLock(path, 0o600)
    assert one.take()
    assert not other.take()
    pid = os.fork()
    if pid == 0:
        os._exit(StoreLock(path, 0o600).take())
    assert os.waitpid(pid, 0)[1] == 0
    one.release()
    assert other.wait(0.1)
    other.release()


def test_network_file_systems_are_told(tmp_path):
    mounts = tmp_path / "mounts"
    mounts.write_text(
        "1 0 0:1 / / rw - ext4 /dev/a rw\n2 1 0:2 / /srv rw,x shared:1 - nfs4 host:/x rw\n"
    )
    assert file_system("/srv/a/file.db", str(mounts)) == "nfs4"
    assert file_system("/var/file.db", str(mounts)) == "ext4"


def test_a_copied_folder_is_a_store_of_its_own(tmp_path):
    folder = tmp_path / "one"
    folder.mkdir()
    store = SqliteStore(str(folder / "file.db"))
    store.apply([put("a")])
    shutil.copytree(folder, tmp_path / "two")
    store.close()
    assert ids_in(tmp_path / "two" / "file.db") == {"a"}
