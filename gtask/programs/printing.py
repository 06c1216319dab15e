"""Standard streams of small programs that may be closed, full, cut off or of any encoding."""

from __future__ import annotations

import contextlib
import io
import os
import sys


class OutputLost(Exception):
    """Standard output takes no more; the message says why."""


def open_missing() -> None:
    """Open what is closed of the descriptors 0 to 2, or a connection would get their numbers."""
    while True:
        descriptor = os.open(os.devnull, os.O_RDWR)
        if descriptor > 2:
            os.close(descriptor)
            return


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
            print(one_line(line), file=sys.stderr, flush=True)
            return
    _discard(sys.stderr)


def forget_output() -> None:
    """What is still buffered would be written at exit, fail again, and be reported then."""
    _discard(sys.stdout)


def one_line(text: str, limit: int = 2000) -> str:
    """`text` without line feeds and what a terminal would obey, which a peer may have sent."""
    text = " ".join(text[: 4 * limit].split())
    shown = "".join(c if c.isprintable() or c == " " else repr(c)[1:-1] for c in text)
    return shown if len(shown) <= limit else shown[:limit] + "…"


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


def keep_surrogates() -> None:
    """Have characters that an encoding lacks be written as escapes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _discard(stream: object) -> None:
    with contextlib.suppress(OSError, ValueError, AttributeError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())  # type: ignore[attr-defined]
        os.close(null)
