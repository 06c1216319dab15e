"""The user's code and certificates, and that all that is wrong with them is told."""

from __future__ import annotations

import ssl
import subprocess
import sys

import pytest

from gtask.config import Settings, make_service
from gtask.errors import ConfigError
from gtask.server.load import (
    describe,
    load_certificates,
    load_script_workers,
    load_workers,
)
from gtask.worker import Worker


@pytest.fixture
def modules(tmp_path, monkeypatch):
    """Writes modules that can be imported in this test only."""
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    before = set(sys.modules)

    def write(**texts: str) -> None:
        for name, text in texts.items():
            (tmp_path / f"{name}.py").write_text(text)

    yield write
    for name in set(sys.modules) - before:
        del sys.modules[name]


def settings(*services, **options) -> Settings:
    return Settings(services=services, file="f.ini", **options)


def problems_of(*services) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_workers(settings(*services))
    return caught.value.problems


def test_tasks_and_options(modules):
    modules(some_tasks="from gtask import task\n@task\ndef add(a, b):\n    return a + b\n")
    service = make_service("A", "text://h:1", tasks="some_tasks", count=3, allow="::1")
    (worker,) = load_workers(settings(service)).values()
    assert (worker.name, worker.count, list(worker.served)) == ("A", 3, ["add"])
    assert worker.settings().allow == service.allow


def test_a_handlers_callbacks(modules):
    modules(
        some_handler="def on_message(c, d): pass\non_close = None\napplication = on_message\n"
        "def choose_subprotocol(offered, environ): pass\n"
    )
    worker = load_workers(settings(make_service("A", "websocket://h:1", handler="some_handler")))[
        "A"
    ]
    handler = sys.modules["some_handler"]
    assert worker.on_message is handler.on_message
    assert worker.on_close is None
    assert worker.application is handler.application
    assert worker.choose_subprotocol is handler.choose_subprotocol


def test_a_service_with_tasks_has_a_handler_for_its_processes(modules):
    modules(
        some_tasks="from gtask import task\n@task\ndef add(a, b):\n    return a + b\n",
        hooks="def on_worker_start(worker): pass\ndef on_worker_stop(worker): pass\n",
    )
    service = make_service("A", "text://h:1", tasks="some_tasks", handler="hooks")
    worker = load_workers(settings(service))["A"]
    hooks = sys.modules["hooks"]
    assert list(worker.served) == ["add"]
    assert worker.on_worker_start is hooks.on_worker_start
    assert worker.on_worker_stop is hooks.on_worker_stop
    assert worker.on_worker_reload is None


def test_what_such_a_handler_defines_in_vain_is_told(modules):
    modules(
        some_tasks="from gtask import task\n@task\ndef add(a, b):\n    return a + b\n",
        more="def on_worker_start(w): pass\ndef on_message(c, d): pass\napplication = 5\n",
        nothing="",
        not_callable="on_worker_stop = 5\n",
    )
    assert problems_of(
        make_service("A", "text://h:1", tasks="some_tasks", handler="more"),
        make_service("B", "text://h:2", tasks="some_tasks", handler="nothing"),
        make_service("C", "text://h:3", tasks="some_tasks", handler="not_callable"),
        make_service("D", "text://h:4", tasks="some_tasks", handler="no_such"),
    ) == [
        "f.ini [worker:A] handler: more.on_message is never called, "
        "as tasks answer the service's calls",
        "f.ini [worker:A] handler: more.application is never called, "
        "as tasks answer the service's calls",
        "f.ini [worker:B] handler: module nothing has none of "
        "on_worker_start, on_worker_stop, on_worker_reload",
        "f.ini [worker:C] handler: not_callable.on_worker_stop is not a function",
        "f.ini [worker:D] handler: cannot import no_such: "
        "ModuleNotFoundError: No module named 'no_such'",
    ]


def test_a_scripts_workers_have_their_handlers(modules):
    modules(
        some_tasks="from gtask import task\n@task\ndef add(a, b):\n    return a + b\n",
        hooks="def on_worker_start(worker): pass\n",
        some_handler="def on_message(c, d): pass\n",
    )
    tasks = Worker("text://h:1", name="A", tasks="some_tasks", handler="hooks")
    callbacks = Worker("text://h:2", name="B", handler="some_handler")
    callbacks.application = print
    assert load_script_workers(settings(), [tasks, callbacks]) == {"A": tasks, "B": callbacks}
    assert tasks.on_worker_start is sys.modules["hooks"].on_worker_start
    assert callbacks.on_message is sys.modules["some_handler"].on_message
    assert callbacks.application is print, "what the script has set stays"
    with pytest.raises(ConfigError) as caught:
        load_script_workers(settings(), [Worker("text://h:1", name="A", handler="no_such")])
    assert caught.value.problems == [
        "worker A: handler: cannot import no_such: ModuleNotFoundError: No module named 'no_such'"
    ]


def test_modules_are_looked_for_in_python_path_first(tmp_path, modules, monkeypatch):
    (tmp_path / "release").mkdir()
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
    (tmp_path / "link").symlink_to("there")
    monkeypatch.chdir(tmp_path / "here")
    here, there = str(tmp_path / "here"), str(tmp_path / "there")
    sys.path[:0] = [here, "", there]
    load_workers(settings(python_path=("../link",)))
    assert sys.path[:3] == [there, here, ""]


def test_modules_are_found_in_the_working_directory_and_in_python_path(
    tmp_path, modules, monkeypatch
):
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{folder}_handler.py").write_text("def on_message(c, d): pass\n")
    monkeypatch.chdir(tmp_path / "here")
    load_workers(
        settings(
            make_service("A", "text://h:1", handler="here_handler"),
            make_service("B", "text://h:2", handler="there_handler"),
            python_path=(str(tmp_path / "there"),),
        )
    )
    assert {"here_handler", "there_handler"} <= set(sys.modules)


def test_all_that_is_wrong_is_told(modules, tmp_path):
    modules(
        empty_module="",
        exits="import sys\nsys.exit(3)\n",
        broken="def f(:\n",
        fails="\n1 / 0\n",
        not_callable="on_message = 5\n",
    )
    assert problems_of(
        make_service("A", "text://h:1", tasks="no_such, exits, broken, fails"),
        make_service("B", "text://h:2", tasks="empty_module"),
        make_service("C", "text://h:3", handler="empty_module"),
        make_service("D", "text://h:4", handler="not_callable"),
    ) == [
        "f.ini [worker:A] tasks: cannot import no_such: "
        "ModuleNotFoundError: No module named 'no_such'",
        f"f.ini [worker:A] tasks: cannot import exits: SystemExit: 3 ({tmp_path}/exits.py, line 2)",
        "f.ini [worker:A] tasks: cannot import broken: "
        f"SyntaxError: invalid syntax ({tmp_path}/broken.py, line 1)",
        "f.ini [worker:A] tasks: cannot import fails: "
        f"ZeroDivisionError: division by zero ({tmp_path}/fails.py, line 2)",
        "f.ini [worker:B] tasks: module empty_module has no function marked with @task",
        "f.ini [worker:C] handler: module empty_module has neither on_message nor application",
        "f.ini [worker:D] handler: not_callable.on_message is not a function",
    ]


def test_an_exception_that_came_through_no_code_of_the_users_has_no_place():
    with pytest.raises(ConfigError) as caught:
        make_service("A", "text://h:1", count=0)
    assert describe(caught.value.with_traceback(None)) == (
        "gtask.errors.ConfigError: worker A: count: expected 1 to 1000 processes, "
        '"auto" or e.g. "10x" (ten per core), not 0'
    )


# -- certificates ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> str:
    """A file that holds a certificate and its key."""
    folder = tmp_path_factory.mktemp("tls")
    words = "req -x509 -newkey rsa:2048 -nodes -subj /CN=h -keyout key.pem -out certificate.pem"
    subprocess.run(["openssl", *words.split()], cwd=folder, check=True, capture_output=True)
    both = folder / "both.pem"
    both.write_text((folder / "key.pem").read_text() + (folder / "certificate.pem").read_text())
    return str(both)


def test_no_certificate_is_no_tls():
    assert load_certificates(settings(make_service("A", "text://h:1"))) == {"A": None}


def test_clients_must_show_a_certificate_where_their_authorities_are_named(certificate):
    made = load_certificates(
        settings(
            make_service("A", "text://h:1", certfile=certificate),
            make_service("B", "text://h:2", certfile=certificate, cafile=certificate),
        )
    )
    assert made["A"].verify_mode == ssl.CERT_NONE
    assert made["B"].verify_mode == ssl.CERT_REQUIRED


def test_files_that_hold_no_certificates_are_told(certificate):
    with pytest.raises(ConfigError) as caught:
        load_certificates(
            settings(
                make_service("A", "text://h:1", certfile=__file__),
                make_service("B", "text://h:2", certfile=certificate, cafile=__file__),
            )
        )
    one, other = caught.value.problems
    assert one.startswith(f"f.ini [worker:A] certfile: cannot use {__file__}: ")
    assert other.startswith(f"f.ini [worker:B] cafile: cannot use {__file__}: ")
