"""The slow work, in worker processes of its own."""

import time

from gtask import current_task, task


@task
def send_letters(to, contents):
    """Stands for mails that take a while; reports each of them."""
    for number in range(1, len(to) + 1):
        time.sleep(0.05)
        current_task().progress(number, len(to), to[number - 1])
    return f"{len(to)} x {contents}"
