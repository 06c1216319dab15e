"""Standard streams of small programs that may be closed, full, cut off or of any encoding."""

from __future__ import annotations

import contextlib
import os
import sys

from ..streams import open_standard_streams


class OutputLost(Exception):
    """Standard output takes no more; the message says why."""


def open_streams() -> None:
    """Open what is closed of the standard streams, or a connection would get their numbers.

    Standard output stays known as closed, as a result that goes nowhere is a failure.
    """
    is_closed = sys.stdout is None
    open_standard_streams()
    if is_closed:
        sys.stdout = None


def is_unicode() -> bool:
    """Standard output takes any character."""
    encoding = getattr(sys.stdout, "encoding", None) or ""
    return encoding.lower().replace("-", "").replace("_", "").startswith("utf")


def write(line: str) -> None:
    """Put a line on standard output, and see that it gets there.

    Raises:
        BrokenPipeError: nobody reads it.
        OutputLost: it cannot be written.
    """
    if sys.stdout is None:
        raise OutputLost("standard output is closed")
    try:
        print(line, flush=True)
    except BrokenPipeError:
        raise
    except (OSError, ValueError) as error:
        forget_output()
        raise OutputLost(f"standard output: {getattr(error, 'strerror', None) or error}") from None


def complain(line: str) -> None:
    """Put a line on standard error, if somebody can read it."""
    with contextlib.suppress(OSError, ValueError):
        if sys.stderr is not None:
            print(line, file=sys.stderr, flush=True)
            return
    _discard(sys.stderr)


def forget_output() -> None:
    """What is still buffered would be written at exit, fail again, and be reported then."""
    _discard(sys.stdout)


def read_input() -> bytes:
    """All of standard input, in whatever encoding it is.

    Raises:
        ValueError: it cannot be read.
    """
    if sys.stdin is None:
        raise ValueError("standard input is closed")
    try:
        return sys.stdin.buffer.read()
    except OSError as error:
        raise ValueError(f"standard input: {error.strerror or error}") from None


def _discard(stream: object) -> None:
    with contextlib.suppress(OSError, ValueError, AttributeError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())  # type: ignore[attr-defined]
        os.close(null)
