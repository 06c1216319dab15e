"""`Desk`: what callers and operators ask of a store by name, each answered when it is safe."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import Any

from ..errors import BadArguments, TaskError, UnknownTask
from ..protocols.jsontext import dumps
from ..protocols.messages import Call, notification
from .dealer import Asks
from .line import Line
from .operations import (
    Cancel,
    Check,
    Counts,
    Listing,
    Look,
    Operation,
    Pause,
    Purge,
    Put,
    Result,
    Retry,
)
from .records import checked_id, new_task
from .states import State
from .wire import as_result

MAX_WAIT_SECONDS = 300.0
MAX_TOGETHER = 500  # tasks of one `gtask.put_many`
FINAL_WORDS = tuple(state.word for state in State if state.is_final)

Answer = Callable[[Any], None]  # takes the result, or the `TaskError`


class Waiter:
    """A call of `gtask.result` that waits for a final state."""

    def __init__(self, call: Call, line: Line, answer: Answer) -> None:
        self.call = call
        self.line = line
        self.answer = answer
        self.timer: Any = None

    def end(self) -> None:
        if self.timer is not None:
            self.timer.stop()
            self.timer.close()
            self.timer = None


class Desk:
    """Answers calls; loop only.

    Args:
        asks: the committer.
        stop_run: told the owner and the fence of a run whose end is asked for.
        backup: writes a copy of the store to a path, and tells the answer how that went.
    """

    def __init__(
        self,
        loop: Any,
        asks: Asks,
        stop_run: Callable[[int, int], None],
        backup: Callable[[str, Answer], None],
    ) -> None:
        self._loop = loop
        self._backup = backup
        self._asks = asks
        self._stop_run = stop_run
        self._waiters: defaultdict[tuple[str, str], list[Waiter]] = defaultdict(list)
        self._reports: dict[tuple[str, str], list[Any]] = {}

    def take(self, line: Line, call: Call) -> None:
        """Answer a call on the connection that it came by, now or later."""

        def answer(value: Any) -> None:
            if not call.is_notification:
                is_error = isinstance(value, TaskError)
                line.send((call.error(value) if is_error else call.result(value)) + b"\n")

        self.answer(call, answer, line)

    def answer(self, call: Call, answer: Answer, line: Line | None = None) -> None:
        """Have `answer` told the result of a call, or its `TaskError`; now or later."""
        function = FUNCTIONS.get(call.function)
        try:
            if function is None:
                raise UnknownTask(f"unknown function {call.function[:100]!r}")
            if type(call.args) is not dict and call.args:
                raise BadArguments(f"{call.function}: arguments are given by name")
            params = dict(call.args or {})
            queue = params.pop("queue", "default")
            if type(queue) is not str:
                raise BadArguments("queue must be a text")
            function(self, queue, params, answer, call, line)
        except TaskError as error:
            answer(error)

    # -- put ----------------------------------------------------------------------------------

    def put(self, queue: str, params: dict[str, Any], answer: Answer, *_: Any) -> None:
        def then(outcome: Any) -> None:
            answer(_as_put(outcome))

        self._asks.submit(_put_operation(queue, params), then)

    def put_many(self, queue: str, params: dict[str, Any], answer: Answer, *_: Any) -> None:
        tasks = params.get("tasks")
        if type(tasks) is not list or params.keys() != {"tasks"} or len(tasks) > MAX_TOGETHER:
            raise BadArguments(f'gtask.put_many takes {{"tasks": [...]}}, at most {MAX_TOGETHER}')
        answers: list[Any] = [None] * len(tasks)
        missing = len(tasks)

        def tell(index: int, value: Any) -> None:
            nonlocal missing
            is_error = isinstance(value, TaskError)
            answers[index] = {"error": value.as_dict()} if is_error else value
            missing -= 1
            if not missing:
                answer(answers)

        if not tasks:
            answer([])
        for index, task in enumerate(tasks):
            try:
                self.put(queue, _dict(task), partial(tell, index))
            except TaskError as error:
                tell(index, error)

    # -- asking -------------------------------------------------------------------------------

    def state(self, queue: str, params: dict[str, Any], answer: Answer, *_: Any) -> None:
        self._asks.submit(Look(queue, _only_id(params)), answer)

    def show(self, queue: str, params: dict[str, Any], answer: Answer, *_: Any) -> None:
        self._asks.submit(Look(queue, _only_id(params), with_args=True), answer)

    def counts(self, queue: str, params: dict[str, Any], answer: Answer, *_: Any) -> None:
        self._asks.submit(Counts(), answer)

    def result(
        self, queue: str, params: dict[str, Any], answer: Answer, call: Call, line: Line | None
    ) -> None:
        wait = params.pop("wait", 0)
        if type(wait) not in (int, float) or not 0 <= wait <= MAX_WAIT_SECONDS:
            raise BadArguments(f"wait must be 0 to {MAX_WAIT_SECONDS:g} seconds")
        id = _only_id(params)

        def then(found: Any) -> None:
            is_over = isinstance(found, TaskError) or found.state.is_final
            if is_over or not wait or line is None:
                answer(found if isinstance(found, TaskError) else as_result(found))
            else:
                self._wait(queue, id, wait, Waiter(call, line, answer))

        self._asks.submit(Result(queue, id), then)

    def _wait(self, queue: str, id: str, seconds: float, waiter: Waiter) -> None:
        self._waiters[queue, id].append(waiter)
        waiter.timer = self._loop.timer(seconds)
        waiter.timer.start(self._look_once_more, queue, id, waiter)
        if (report := self._reports.get((queue, id))) is not None:
            _report(waiter, report)

    def _look_once_more(self, queue: str, id: str, waiter: Waiter) -> None:
        self._forget(queue, id, waiter)
        self._answer_with_result(queue, id, [waiter])

    def _forget(self, queue: str, id: str, waiter: Waiter) -> None:
        waiter.end()
        waiting = self._waiters.get((queue, id), [])
        if waiter in waiting:
            waiting.remove(waiter)
        if not waiting:
            self._waiters.pop((queue, id), None)

    def _answer_with_result(self, queue: str, id: str, waiters: list[Waiter]) -> None:
        def then(found: Any) -> None:
            value = found if isinstance(found, TaskError) else as_result(found)
            for waiter in waiters:
                waiter.answer(value)

        self._asks.submit(Result(queue, id), then)

    def finished(self, tasks: list[tuple[str, str]]) -> None:
        """These have become final: answer those who wait for them."""
        for place in tasks:
            self._reports.pop(place, None)
            waiters = self._waiters.pop(place, None)
            if waiters:
                for waiter in waiters:
                    waiter.end()
                self._answer_with_result(*place, waiters)

    def progress(self, queue: str, id: str, report: list[Any]) -> None:
        """A task tells how far it is: only the latest is kept, and only in memory."""
        self._reports[queue, id] = report
        for waiter in self._waiters.get((queue, id), ()):
            _report(waiter, report)

    def left(self, line: Line) -> None:
        """A caller has gone, and with it what it waits for."""
        for (queue, id), waiters in list(self._waiters.items()):
            for waiter in [each for each in waiters if each.line is line]:
                self._forget(queue, id, waiter)

    def give_up(self, queue: str, params: dict[str, Any], answer: Answer, *rest: Any) -> None:
        """`gtask.cancel`: a caller waits no more for a call of its own."""
        _, line = rest
        for (queue, id), waiters in list(self._waiters.items()):
            for waiter in [each for each in waiters if each.line is line]:
                if waiter.call.id == params.get("id"):
                    self._forget(queue, id, waiter)
        answer(True)

    # -- changing -----------------------------------------------------------------------------

    def cancel(self, queue: str, params: dict[str, Any], answer: Answer, *_: Any) -> None:
        id = _only_id(params)

        def then(outcome: Any) -> None:
            if isinstance(outcome, TaskError):
                answer(outcome)
                return
            state, is_requested, owner, fence = outcome
            if fence:
                self._stop_run(owner, fence)
            answer({"id": id, "state": state.word, "cancel_requested": is_requested})

        self._asks.submit(Cancel(queue, id), then)

    def retry(self, queue: str, params: dict[str, Any], answer: Answer, *_: Any) -> None:
        self._asks.submit(Retry(queue, _only_id(params)), answer)

    def listing(self, queue: str, params: dict[str, Any], answer: Answer, *_: Any) -> None:
        state, function = params.pop("state", ""), params.pop("function", "")
        limit, after = params.pop("limit", 100), params.pop("after", 0)
        if type(after) is not int:
            after = checked_id(after)
        if params or state not in ("", *(each.word for each in State)):
            raise BadArguments("store.list takes state, function, limit and after")
        if type(limit) is not int or not 1 <= limit <= 1000:
            raise BadArguments("limit must be 1 to 1000")

        def then(outcome: Any) -> None:
            is_error = isinstance(outcome, TaskError)
            answer(outcome if is_error else {"tasks": outcome[0], "next": outcome[1]})

        self._asks.submit(Listing(queue, state, function, limit, after), then)

    def purge(self, queue: str, params: dict[str, Any], answer: Answer, *_: Any) -> None:
        state, older = params.get("state"), params.get("older", 0)
        if state not in FINAL_WORDS or type(older) not in (int, float):
            raise BadArguments(f"store.purge takes a state, {', '.join(FINAL_WORDS)}, and older")
        self._asks.submit(Purge(queue, state, int(older * 1000)), answer)

    def pause(self, queue: str, params: dict[str, Any], answer: Answer, *_: Any) -> None:
        self._asks.submit(Pause(queue, is_paused=True), answer)

    def resume(self, queue: str, params: dict[str, Any], answer: Answer, *_: Any) -> None:
        self._asks.submit(Pause(queue, is_paused=False), answer)

    def backup(self, queue: str, params: dict[str, Any], answer: Answer, *_: Any) -> None:
        path = params.get("path")
        if type(path) is not str or not path.startswith("/"):
            raise BadArguments("path must be absolute")
        self._backup(path, answer)

    def check(self, queue: str, params: dict[str, Any], answer: Answer, *_: Any) -> None:
        self._asks.submit(Check(), answer)

    def ping(self, queue: str, params: dict[str, Any], answer: Answer, *_: Any) -> None:
        answer("pong")


def _put_operation(queue: str, params: dict[str, Any]) -> Operation:
    if params.keys() - {"function", "args", "options"}:
        raise BadArguments('gtask.put takes "function", "args" and "options"')
    args = params.get("args", [])
    if type(args) is not dict and type(args) is not list:
        raise BadArguments('"args" must be an object or an array')
    return Put(queue, new_task(params.get("function"), dumps(args), params.get("options")))


def _as_put(outcome: Any) -> Any:
    if isinstance(outcome, TaskError):
        return outcome
    id, state, is_created = outcome
    return {"id": id, "state": state.word, "created": is_created}


def _dict(task: Any) -> dict[str, Any]:
    if type(task) is not dict:
        raise BadArguments('a task is an object with "function"')
    return task


def _only_id(params: dict[str, Any]) -> str:
    if params.keys() != {"id"}:
        raise BadArguments('expected {"id": ...}')
    return checked_id(params["id"])


def _report(waiter: Waiter, report: list[Any]) -> None:
    if waiter.call.wants_progress:
        done, total, note = report
        params = {"id": waiter.call.id, "done": done, "total": total, "note": note}
        waiter.line.send(notification("gtask.progress", params) + b"\n")


FUNCTIONS: dict[str, Callable[..., None]] = {
    "gtask.ping": Desk.ping,
    "gtask.cancel": Desk.give_up,
    "gtask.put": Desk.put,
    "gtask.put_many": Desk.put_many,
    "gtask.state": Desk.state,
    "gtask.result": Desk.result,
    "gtask.cancel_job": Desk.cancel,
    "gtask.counts": Desk.counts,
    "store.show": Desk.show,
    "store.list": Desk.listing,
    "store.retry": Desk.retry,
    "store.purge": Desk.purge,
    "store.pause": Desk.pause,
    "store.resume": Desk.resume,
    "store.check": Desk.check,
    "store.backup": Desk.backup,
}
