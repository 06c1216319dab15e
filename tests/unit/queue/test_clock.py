"""Tasks by the clock: which moments are put, and which are let go."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gtask.config import CronSettings, parse_settings
from gtask.errors import ConfigError
from gtask.queue import operations as ops
from gtask.queue.clock import Clock
from gtask.queue.sqlite.store import SqliteStore
from gtask.store_address import parse_store

NOON = 1_800_014_400_000  # 2027-01-15 12:00 UTC
HOURLY = CronSettings(
    name="Hourly", queue=parse_store("sqlite:///x.db"), when="0 * * * *", function="report"
)


class World:
    def __init__(self, path) -> None:
        self.now = NOON + 1000
        self.store = SqliteStore(str(path), clock=lambda: self.now)
        self.start(HOURLY)

    def start(self, *sections) -> None:
        self.clock = Clock(sections, self, lambda: self.now)

    def submit(self, operation, then) -> None:
        then(self.store.apply([operation]).outcomes[0])

    def tick(self, seconds: float = 0) -> list[str]:
        """The ids in the store after so many seconds."""
        self.now += int(seconds * 1000)
        self.clock.tick()
        self.clock.tick()
        records, _ = self.store.apply([ops.Listing("default")]).outcomes[0]
        return [record["id"].rpartition(":")[2] for record in records]


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path / "file.db")
    yield made
    made.store.close()


def moment(hours: float) -> str:
    return str(NOON // 1000 + int(hours * 3600))


def test_the_first_sight_makes_up_for_nothing_then_each_moment_is_put_once(world):
    assert world.tick() == []
    assert world.tick(3598) == []
    assert world.tick(1) == [moment(1)]
    assert world.tick(1) == [moment(1)]
    assert world.tick(3600) == [moment(1), moment(2)]


def test_what_was_missed_is_made_up_for_within_its_grace(world):
    world.tick()
    world.now += 2 * 3600_000 + 600_000
    world.start(HOURLY)
    assert world.tick() == [moment(2)]
    world.now += 7200_000
    world.start(replace(HOURLY, grace=60))
    assert world.tick() == [moment(2)]


def test_two_hosts_put_one_task(world):
    world.tick()
    world.now += 3600_000
    assert world.tick() == [moment(1)]
    world.store._connection.execute("UPDATE cron SET moment = ?", (NOON,))
    world.start(HOURLY)
    assert world.tick() == [moment(1)]


def test_time_zones(world):
    world.start(replace(HOURLY, when="30 14 * * *", timezone="Europe/Berlin"))
    world.tick()
    assert world.tick(2 * 3600) == [moment(1.5)]


INI = """
[worker:A]
listen = sqlite:///var/x.db
tasks = t
[cron:Nightly]
queue = sqlite:///var/x.db
when = 0 3 * * *
function = report
args = {"a": 1}
timezone = Europe/Berlin
"""


def test_the_section():
    (cron,) = parse_settings(INI).crons
    assert (cron.name, cron.when, cron.args, cron.grace) == (
        "Nightly",
        "0 3 * * *",
        '{"a": 1}',
        3600,
    )


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("0 3 * * *", "0 25 * * *", "when: "),
        ("Europe/Berlin", "Europe/Nowhere", "timezone: there is no time zone"),
        ('{"a": 1}', "1", "args: expected a JSON"),
        ("function = report", "", "function: is missing"),
        ("queue = sqlite:///var/x.db", "queue = text://h:1", "queue: expected one store"),
        ("grace", "gracious = 1", ""),
        ("timezone =", "timezones =", "timezones: unknown key"),
        ("Nightly", "a b", "name: expected letters"),
    ],
)
def test_what_is_wrong_with_it(old, new, words):
    if old in INI:
        with pytest.raises(ConfigError, match=words):
            parse_settings(INI.replace(old, new))
