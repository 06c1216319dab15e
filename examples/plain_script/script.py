"""A plain script, without gevent or any loop of its own, that has many tasks done at once."""

import os
import sys

from gtask import TaskClient, TaskError, as_completed


def main(texts):
    """Print each text's digest as soon as it is there."""
    failed = 0
    with TaskClient(os.environ.get("TASKS", "text://127.0.0.1:12345").split(",")) as client:
        # Nothing is sent before we wait: this program's loop runs only then.
        texts_by_call = {client.call("digest", [text], retries=3): text for text in texts}
        for call in as_completed(texts_by_call):
            try:
                print(texts_by_call[call], call.get())
            except TaskError as error:
                failed += 1
                print(f"{texts_by_call[call]}: {error}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
