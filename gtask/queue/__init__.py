"""Durable tasks (docs/queue.md).

`states` is the life of a task, `records` and `operations` are what is kept and what can be asked for,
`store` is the interface of every store and `sqlite/` the one that is a file. The process that owns
such a file is `process`, which serves callers by `desk` and deals to workers by `dealer`. A program puts
tasks with `Queue`, in `queue`. A worker's side is in `gtask.server.queue`.
"""
