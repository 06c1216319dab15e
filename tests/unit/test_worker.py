"""The declaration of a service."""

from __future__ import annotations

import pytest

from gtask import Worker, task
from gtask.errors import ConfigError


def test_options_are_attributes_and_attributes_are_options():
    worker = Worker("Text://127.0.0.1:12345", count=3)
    assert worker.count == 3
    worker.count = 5
    worker.name = "TaskWorker"
    settings = worker.settings()
    assert (settings.name, settings.count, settings.listen.port) == ("TaskWorker", 5, 12345)


def test_what_cannot_be_is_refused():
    with pytest.raises(TypeError, match="did you mean count"):
        Worker("text://127.0.0.1:1", cuont=3)
    with pytest.raises(ConfigError, match="count"):
        Worker("text://127.0.0.1:1", count=0)
    worker = Worker("text://127.0.0.1:1")
    worker.concurrency = -1
    with pytest.raises(ConfigError, match="concurrency"):
        worker.settings()


def test_tasks_are_functions_or_modules():
    @task
    def add(a, b):
        return a + b

    worker = Worker("text://127.0.0.1:1", tasks=[add, "examples.mailer.tasks"])
    worker.load()
    assert {"add", "send_mail", "send_newsletter"} <= set(worker.function_names())


def test_a_worker_without_tasks_shows_its_callback():
    assert Worker("text://127.0.0.1:1").function_names() == ["on_message"]
