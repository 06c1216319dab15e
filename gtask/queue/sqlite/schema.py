"""The tables of a store, version 1, and how SQLite is set up and its errors are told.

Arguments of up to `INLINE_BYTES` are in the task's row; longer ones are apart, since SQLite writes a row anew
as a whole with each change of its state.
"""

from __future__ import annotations

import os
import sqlite3

from ...errors import StoreUnavailable
from .files import cannot_open, open_with_mode, refuse_network, unavailable

VERSION = 1
APPLICATION_ID = 0x67746B31  # "gtk1", so that no other program's database is taken for a store
INLINE_BYTES = 1000
BUSY_SECONDS = 1.0  # that another program may hold SQLite's own lock

TABLES = """
CREATE TABLE meta (
  number INTEGER PRIMARY KEY CHECK (number = 1),
  last INTEGER NOT NULL            -- the last fence or position that was given
);
INSERT INTO meta VALUES (1, 0);
CREATE TABLE queue (
  number INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  paused INTEGER NOT NULL DEFAULT 0,
  delayed INTEGER NOT NULL DEFAULT 0,
  ready_high INTEGER NOT NULL DEFAULT 0,
  ready_normal INTEGER NOT NULL DEFAULT 0,
  ready_low INTEGER NOT NULL DEFAULT 0,
  running INTEGER NOT NULL DEFAULT 0,
  done INTEGER NOT NULL DEFAULT 0,
  dead INTEGER NOT NULL DEFAULT 0,
  cancelled INTEGER NOT NULL DEFAULT 0,
  expired INTEGER NOT NULL DEFAULT 0,
  put_total INTEGER NOT NULL DEFAULT 0,
  done_total INTEGER NOT NULL DEFAULT 0,
  dead_total INTEGER NOT NULL DEFAULT 0,
  retried_total INTEGER NOT NULL DEFAULT 0,
  lost_total INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE owner (
  number INTEGER PRIMARY KEY,
  boot_id TEXT NOT NULL,
  pid_namespace TEXT NOT NULL,
  pid INTEGER NOT NULL,
  start_time INTEGER NOT NULL,
  UNIQUE (boot_id, pid_namespace, pid, start_time)
);
CREATE TABLE task (                -- times are milliseconds of the unix clock
  seq INTEGER PRIMARY KEY,
  queue INTEGER NOT NULL,
  id TEXT NOT NULL,
  state INTEGER NOT NULL,
  priority INTEGER NOT NULL,
  position INTEGER NOT NULL,       -- among the ready ones of its priority
  suspect INTEGER NOT NULL DEFAULT 0,
  function TEXT NOT NULL,
  args BLOB,                       -- NULL: in `arguments`
  key TEXT,
  enqueued_at INTEGER NOT NULL,
  due_at INTEGER NOT NULL,
  expires_at INTEGER,
  started_at INTEGER,
  ended_at INTEGER,
  forget_at INTEGER,
  refused_at INTEGER,              -- when a process first did not know its function
  retries INTEGER,                 -- as put; NULL: the function's
  timeout_ms INTEGER,
  result_ttl_ms INTEGER,
  allowed INTEGER NOT NULL DEFAULT 0,   -- retries of the present run, whoever said so
  limit_ms INTEGER NOT NULL DEFAULT 0,  -- time limit of the present run
  fence INTEGER NOT NULL DEFAULT 0,
  owner INTEGER,
  deliveries INTEGER NOT NULL DEFAULT 0,
  free INTEGER NOT NULL DEFAULT 0,      -- deliveries that are no attempts
  interruptions INTEGER NOT NULL DEFAULT 0,
  losses INTEGER NOT NULL DEFAULT 0,
  cancel_requested INTEGER NOT NULL DEFAULT 0,
  reason TEXT,
  outcome BLOB,
  UNIQUE (queue, id)
);
CREATE TABLE cron (name TEXT PRIMARY KEY, moment INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE arguments (seq INTEGER PRIMARY KEY, args BLOB NOT NULL);
CREATE UNIQUE INDEX task_key ON task (queue, key) WHERE key IS NOT NULL AND state <= 2;
CREATE INDEX task_ready ON task (queue, priority, suspect, position) WHERE state = 1;
CREATE INDEX task_due ON task (due_at) WHERE state = 0;
CREATE INDEX task_owner ON task (owner) WHERE state = 2;
CREATE INDEX task_expires ON task (expires_at) WHERE expires_at IS NOT NULL AND state <= 1;
CREATE INDEX task_forget ON task (state, forget_at) WHERE state > 2;
"""


def connect(path: str, mode: int) -> sqlite3.Connection:
    """Open the store's database, which is made if there is none; only under the store's lock.

    Raises:
        StoreUnavailable: it cannot be used.
    """
    path = os.path.realpath(path)
    try:
        os.close(open_with_mode(path, mode))
    except OSError as error:
        raise cannot_open(path, error) from error
    refuse_network(path)
    try:
        connection = sqlite3.connect(
            path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
    except sqlite3.Error as error:
        raise translated(error) from error
    try:
        _set_up(connection, path)
    except sqlite3.Error as error:
        connection.close()
        raise translated(error) from error
    except BaseException:
        connection.close()
        raise
    return connection


def _set_up(connection: sqlite3.Connection, path: str) -> None:
    execute = connection.execute
    (version,) = execute("PRAGMA user_version").fetchone()
    (application,) = execute("PRAGMA application_id").fetchone()
    (tables,) = execute("SELECT count(*) FROM sqlite_master").fetchone()
    if (version, application) != (VERSION, APPLICATION_ID) and (version or application or tables):
        what = f"schema version {version}" if application == APPLICATION_ID else "another program's"
        raise unavailable("version", f"{path}: {what}; this gtask needs version {VERSION}")
    # With more than one connection, SQLite before 3.51.3 may corrupt a file when one commits while
    # another checkpoints (sqlite.org/wal.html#walresetbug): only we do, between two commits.
    execute("PRAGMA wal_autocheckpoint = 0")
    execute("PRAGMA journal_mode = WAL")
    execute("PRAGMA synchronous = FULL")
    execute("PRAGMA cache_size = -16384")
    execute("PRAGMA temp_store = MEMORY")
    if not version:
        _make_tables(connection)


def _make_tables(connection: sqlite3.Connection) -> None:
    statements = f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION};"
    connection.executescript(f"BEGIN IMMEDIATE; {TABLES} {statements} COMMIT;")


def translated(error: sqlite3.Error, accepted: str = "no") -> StoreUnavailable:
    """The error for whoever asks; the reasons are those of docs/protocol.md."""
    name = getattr(error, "sqlite_errorname", "")
    for beginning, reason in (
        ("SQLITE_FULL", "disk_full"),
        ("SQLITE_READONLY", "read_only"),
        ("SQLITE_BUSY", "locked"),
        ("SQLITE_LOCKED", "locked"),
        ("SQLITE_CORRUPT", "corrupt"),
        ("SQLITE_NOTADB", "corrupt"),
        ("SQLITE_IOERR", "unreachable"),
        ("SQLITE_CANTOPEN", "unreachable"),
    ):
        if name.startswith(beginning):
            return unavailable(reason, f"the store cannot be used: {error}", accepted)
    return unavailable("unreachable", f"the store cannot be used: {error}", accepted)
