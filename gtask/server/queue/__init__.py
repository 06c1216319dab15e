"""A worker's side of durable tasks: `link` speaks with the process that owns the store, `run` is one
task with its end, `side` is what the service of the worker sees of it, `forward` takes callers' questions on.
"""
