"""The example's page in a real browser: click, live progress, 작업 완료, and what arrived."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ..support.mailer import Sink, chromium, free_port, mailer_env, mailer_ini
from ..support.spawn import SpawnedWorker
from ..support.wait import SLOWNESS, wait_until

DONE = "작업 완료"
# Each value that the first job's progress bar takes, and each round trip that is shown.
WATCH = """() => {
    window.seen = {bar: [], roundTrips: []};
    const look = () => {
        const bar = document.querySelector("progress");
        if (bar && bar.value !== seen.bar.at(-1)) seen.bar.push(bar.value);
        if (bar && bar.value < bar.max)
            seen.roundTrips.push(Number(document.querySelector("#round-trip").textContent) || 0);
        requestAnimationFrame(look);
    };
    look();
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def sink() -> Iterator[Sink]:
    sink = Sink()
    yield sink
    assert sink.stop() == 0


@pytest.fixture(scope="module")
def mailer(tmp_path_factory: pytest.TempPathFactory, sink: Sink) -> Iterator[SpawnedWorker]:
    folder = tmp_path_factory.mktemp("mailer")
    mailer = SpawnedWorker(folder, mailer_ini(folder, 0), env=mailer_env(folder, sink))
    yield mailer
    mailer.close()


@pytest.fixture
def page(browser: Any, mailer: SpawnedWorker) -> Iterator[Any]:
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.set_default_timeout(20_000 * SLOWNESS)
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda line: line.type == "error" and problems.append(line.text))
    open_page(page, mailer)
    yield page
    page.close()
    assert problems == []


def open_page(page: Any, mailer: SpawnedWorker) -> None:
    page.goto(mailer.url("Web").replace("websocket://", "http://"))
    page.wait_for_selector('#live[data-state="open"]')


def start(page: Any, count: int) -> None:
    page.fill("[name=count]", str(count))
    page.click("#send")


def test_a_thousand_mails(page: Any, sink: Sink) -> None:
    before = sink.count
    page.evaluate(WATCH)
    page.click("#send")  # 1,000 recipients are what the form proposes
    page.wait_for_selector(f"text={DONE}")
    seen = page.evaluate("seen")
    assert len(seen["bar"]) >= 5, "the bar moved in steps"
    assert seen["bar"] == sorted(seen["bar"])
    assert seen["bar"][-1] == 1000
    assert max(seen["roundTrips"]) < 500 * SLOWNESS, "the page stays live"
    assert sink.count - before == 1000
    job = page.locator(".job").first
    assert "1,000 sent" in job.locator(".outcome").inner_text()
    assert int(job.locator(".rate").inner_text().replace(",", "")) > 0
    received = f"{sink.count:,}"
    page.wait_for_selector(f"#received:text-is('{received}')")


def test_several_jobs_at_once(page: Any, sink: Sink) -> None:
    before = sink.count
    for _ in range(3):
        start(page, 300)
    page.wait_for_function("document.querySelectorAll('.job[data-state=running]').length > 1")
    page.wait_for_function("document.querySelectorAll('.job[data-state=done]').length === 3")
    assert sink.count - before == 900


def test_refused_recipients_are_named(page: Any) -> None:
    page.click("#own summary")
    page.fill("[name=addresses]", "good@example.org\nnobody@refused.example")
    page.click("#send")
    page.wait_for_selector(f"text={DONE}")
    job = page.locator(".job").first
    assert "1 sent, 1 failed" in job.locator(".outcome").inner_text()
    job.locator(".failures summary").click()
    failure = job.locator(".failures li").inner_text()
    assert failure == "nobody@refused.example: 550 5.1.1 no such mailbox here"


def test_a_received_message_can_be_read(page: Any) -> None:
    page.fill("[name=contents]", "새 소식 📮\nTwo lines of it")
    start(page, 1)
    page.wait_for_selector(f"text={DONE}")
    page.locator(".message", has_text="새 소식 📮").first.click()
    page.wait_for_selector("#reader[open]")
    assert page.locator("#reader-text").inner_text().strip() == "새 소식 📮\nTwo lines of it"
    page.keyboard.press("Escape")
    assert page.locator("#reader[open]").count() == 0


def test_a_job_can_be_cancelled(page: Any, sink: Sink) -> None:
    before = sink.count
    start(page, 100_000)
    page.wait_for_function("document.querySelector('progress').value > 0")
    page.click(".cancel")
    page.wait_for_selector('.job[data-state="cancelled"]')
    assert sink.count - before < 100_000


def test_nothing_overflows_a_narrow_screen(page: Any) -> None:
    page.set_viewport_size({"width": 320, "height": 640})
    start(page, 3)
    page.wait_for_selector(f"text={DONE}")
    assert page.evaluate("document.documentElement.scrollWidth") <= 320


def test_everything_has_a_name_and_progress_is_told(page: Any) -> None:
    start(page, 50)
    page.wait_for_selector(f"text={DONE}")
    bar = page.get_by_role("progressbar", name=re.compile("50 recipients"))
    assert bar.get_attribute("max") == "50"
    assert DONE in page.locator("[aria-live=polite]").inner_text()
    for control in page.locator("input, textarea, button").all():
        assert control.evaluate("e => e.labels?.length || e.ariaLabel || e.textContent.trim()")


def test_reconnects_after_a_restart(browser: Any, sink: Sink, tmp_path: Path) -> None:
    config, env = mailer_ini(tmp_path, free_port()), mailer_env(tmp_path, sink)
    mailer = SpawnedWorker(tmp_path, config, env=env)
    page = browser.new_page()
    try:
        open_page(page, mailer)
        assert mailer.stop() == 0
        page.wait_for_selector('#live[data-state="lost"]')
        assert "Connection lost" in page.locator("#banner").inner_text()
        assert page.is_disabled("#send")
        mailer.close()
        mailer = SpawnedWorker(tmp_path, config, env=env)
        page.wait_for_selector('#live[data-state="open"]', timeout=20_000 * SLOWNESS)
        assert "Connected again" in page.locator("#banner").inner_text()
        start(page, 20)
        page.wait_for_selector(f"text={DONE}")
    finally:
        page.close()
        mailer.close()


def test_a_reload_lets_a_job_finish(browser: Any, sink: Sink, tmp_path: Path) -> None:
    env = mailer_env(tmp_path, sink)
    config = mailer_ini(tmp_path, 0).replace("stop_timeout = 5", "stop_timeout = 60")
    mailer = SpawnedWorker(tmp_path, config, env=env)
    page = browser.new_page()
    try:
        open_page(page, mailer)
        start(page, 1000)
        page.wait_for_function("document.querySelector('progress').value > 0")
        mailer.send_signal(signal.SIGHUP)
        page.wait_for_selector("text=Connected again.", timeout=30_000 * SLOWNESS)
        job = page.locator(".job").first
        assert job.locator(".chip").inner_text() == DONE
        assert "1,000 sent" in job.locator(".outcome").inner_text()
    finally:
        page.close()
        mailer.close()


def test_a_job_is_told_when_its_workers_die(browser: Any, sink: Sink, tmp_path: Path) -> None:
    env = mailer_env(tmp_path, sink)
    mailer = SpawnedWorker(tmp_path, mailer_ini(tmp_path, 0), env=env)
    page = browser.new_page()
    try:
        open_page(page, mailer)
        start(page, 100_000)
        page.wait_for_function("document.querySelector('progress').value > 0")
        kill_workers(mailer, "TaskWorker")
        page.wait_for_selector('.job[data-state="failed"]')
        assert "the task worker was lost" in page.locator(".outcome").inner_text()
        wait_until(lambda: page.locator('#live[data-state="open"]').count(), what="still live")
        start(page, 20)
        page.wait_for_selector(f"text={DONE}")
    finally:
        page.close()
        mailer.close()


def kill_workers(mailer: SpawnedWorker, name: str) -> None:
    services = {service["name"]: service for service in mailer.status()["services"]}
    for process in services[name]["processes"]:
        os.kill(process["pid"], signal.SIGKILL)


def test_a_real_mail_server(browser: Any, sink: Sink, tmp_path: Path) -> None:
    """With SMTP_HOST set nothing is made up and nothing can be looked at."""
    env = {**mailer_env(tmp_path, sink), "SMTP_HOST": "127.0.0.1", "SINK_URL": ""}
    mailer = SpawnedWorker(tmp_path, mailer_ini(tmp_path, 0), env=env)
    page = browser.new_page()
    before = sink.count
    try:
        open_page(page, mailer)
        assert not page.is_visible("#inbox")
        assert not page.is_visible("[name=count]")
        assert f"127.0.0.1:{sink.smtp_port}" in page.locator("#mail-server").inner_text()
        page.fill("[name=addresses]", "you@example.org")
        page.click("#send")
        page.wait_for_selector(f"text={DONE}")
    finally:
        page.close()
        mailer.close()
    assert sink.count - before == 1
