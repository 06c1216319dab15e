"""The slow work, in worker processes of its own."""

import time

from gtask import task


@task
def render_report(title, rows):
    """Stands for a report that takes a while."""
    if not rows:
        raise ValueError("a report needs rows")
    time.sleep(0.2)
    return {"title": title, "rows": len(rows), "total": sum(rows)}
