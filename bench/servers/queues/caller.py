"""Calls a queue's task, that of the page, and waits for the results, so many at once; prints figures as JSON.

Usage: caller.py MODULE CALLS AT_ONCE. Prints "ready" when the worker has answered once, and awaits
a line before the clock starts and the end of its input after it stopped.
"""

import importlib
import json
import sys
import time

MAIL = {"from_": "alice@example.org", "to": "bob@example.org", "contents": "x" * 40}
RESULT = {"sent": 1, "contents": "x" * 40}


def main():
    tasks, many, at_once = importlib.import_module(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    assert tasks.result(tasks.call(**MAIL)) == RESULT
    print("ready", flush=True)
    sys.stdin.readline()
    times, begun = [], time.monotonic()
    for _ in range(many // at_once):
        start = time.monotonic()
        for call in [tasks.call(**MAIL) for _ in range(at_once)]:
            assert tasks.result(call) == RESULT
        times.append(time.monotonic() - start)
    took = time.monotonic() - begun
    times.sort()
    figures = {"tasks": many // at_once * at_once, "rate": many / took}
    if at_once == 1:
        figures |= {"p50": times[many // 2] * 1e6, "p99": times[many * 99 // 100] * 1e6}
    print(json.dumps(figures), flush=True)
    sys.stdin.read()


main()
