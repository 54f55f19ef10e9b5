"""Standard output and errors through which no name from outside can drive a terminal."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from lvae.manifests.messages import escape_controls

BAR = ("\r", "\x1b[A")  # what a progress bar writes to stay in its line


class EscapingStream:
    """A text stream that writes control characters escaped, as \\x1b. Everything else is the stream's own."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        if isinstance(text, str) and text not in BAR:
            bar = text.startswith("\r") and "\x1b" not in text
            text = "\r" + escape_controls(text[1:]) if bar else escape_controls(text)
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def escaped_output() -> Iterator[None]:
    """Standard output and errors escape what they write, as long as a command runs."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = EscapingStream(sys.stdout), EscapingStream(sys.stderr)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
