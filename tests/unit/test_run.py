"""`run_all`."""

from gtask import Worker
from gtask.run import _number_namesakes


def test_namesakes_are_numbered():
    workers = tuple(Worker(f"text://127.0.0.1:{port}") for port in (1, 2, 3))
    _number_namesakes(workers)
    assert [worker.name for worker in workers] == ["Worker", "Worker-2", "Worker-3"]
