"""The log: how gtask's records are made, where they go, and why nothing ever waits for them.

- `loggers`: what every module logs with. A call never raises.
- `records`: a record, made without asking anybody.
- `delivery`: who gets it: our own handler at once, handlers of the user's where they may wait.
- `handler`, `formats`, `output`: our own handler; it never waits either.
- `hooks`: what Python itself would print, as records.
- `setup`: all of that as the settings want it.

In a process with an event loop, `gtask.net.log_queue` runs the user's handlers.
"""
