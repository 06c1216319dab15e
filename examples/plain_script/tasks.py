"""The slow work, in worker processes of its own."""

import hashlib
import time

from gtask import task


@task
def digest(text):
    """Stands for something that takes a while."""
    time.sleep(0.1)
    return hashlib.sha256(text.encode()).hexdigest()
