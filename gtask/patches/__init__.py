"""What a mold changes in Python so that tasks may use the standard library, beyond what gevent changes.

gevent's patches are made for one native thread. Here is what tasks in native threads
(`@task(blocking=True)`), child processes, and scripts that import before they are patched need, too.
The law: code in a native thread without a hub has the operating system's functions, code in one with
a hub has gevent's, and locks and queues are for both at once.
"""
