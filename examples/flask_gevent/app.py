"""A Flask application under `gunicorn -k gevent` that has its slow work done by gtask workers."""

import os

from flask import Flask, jsonify, request

from gtask import TaskClient, TaskError, wait

# One client for the whole program. It connects at the first call, so it may be made before
# gunicorn forks; a request that waits for a result lets others go on.
tasks = TaskClient(os.environ.get("TASKS", "text://127.0.0.1:12345").split(","), timeout=30)
app = Flask(__name__)


@app.post("/report")
def report():
    """One report: hand it over, wait for it, answer with it."""
    return jsonify(tasks.call("render_report", request.get_json()).get())


@app.post("/reports")
def reports():
    """Several reports at once take as long as the slowest of them."""
    calls = [tasks.call("render_report", args) for args in request.get_json()]
    wait(calls)
    return jsonify([call.error.as_dict() if call.error else call.get() for call in calls])


@app.errorhandler(TaskError)
def failed(error):
    """Failed calls become HTTP errors; 503 says that trying again may help."""
    return jsonify(error=error.as_dict()), 503 if error.retryable else 500
