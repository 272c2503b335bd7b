"""The standard streams of a command: open whatever the shell did, and safe to print foreign text to."""

import os
import sys
import textwrap
from contextlib import suppress
from typing import Any, TextIO, cast

from experiments.config import RunFailed
from experiments.config.problems import visible


class OutputLost(RunFailed):
    """Standard output cannot be written: a full disk, or a pipe that is no longer read."""

    def __init__(self, error: OSError) -> None:
        self.broken_pipe = isinstance(error, BrokenPipeError)
        reason = "broken pipe: the program that reads the output has ended"
        super().__init__(reason if self.broken_pipe else f"the output cannot be written: {error.strerror}")


class Stream:
    """A standard stream that shows control characters instead of sending them to a terminal.

    Args:
        stream: Python's own.
        escapes: Whether to show control characters. rich, which sends its own, does so for itself: see `terminal`.
        optional: Whether what cannot be written is dropped silently.
    """

    def __init__(self, stream: TextIO, *, escapes: bool, optional: bool) -> None:
        self._stream, self._optional = stream, optional
        self._escapes = escapes and stream.isatty()

    def write(self, text: str) -> int:
        """Write text.

        Raises:
            OutputLost: It cannot be written.
        """
        try:
            self._stream.write(visible(text) if self._escapes else text)
        except OSError as error:
            self._give_up(error)
        return len(text)

    def flush(self) -> None:
        """Write what is still in the buffer.

        Raises:
            OutputLost: It cannot be written.
        """
        try:
            self._stream.flush()
        except OSError as error:
            self._give_up(error)

    def without_escapes(self) -> TextIO:
        """The same stream for a writer that escapes control characters itself."""
        return cast(TextIO, Stream(self._stream, escapes=False, optional=self._optional))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _give_up(self, error: OSError) -> None:
        _open_null(self._stream.fileno())  # what is in the buffer would fail again and again
        if not self._optional:
            raise OutputLost(error) from error


def secure() -> None:
    """Open those standard streams that are closed, as the next file that is opened would take their number."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            _open_null(number)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "r" if name == "stdin" else "w", closefd=False, encoding="utf-8"))
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        with suppress(AttributeError):  # not one of Python's own
            stream.reconfigure(errors="backslashreplace")  # whatever the encoding, all text can be written
        setattr(sys, name, Stream(stream, escapes=True, optional=name == "stderr"))


def wrapped(message: str, stream: TextIO) -> str:
    """Break the lines of a message between words where they are shown on a terminal; remedies stay whole."""
    if not stream.isatty():
        return message
    try:
        width = os.get_terminal_size(stream.fileno()).columns
    except OSError:
        width = 0
    return "\n".join(_wrapped(line, width or 80) for line in message.splitlines())


def _wrapped(line: str, width: int) -> str:
    if len(line) <= width or line.startswith("       try  "):
        return line
    indent = "       " if line.startswith("error: ") else "  "
    return textwrap.fill(line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _open_null(number: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    if null == number:
        os.set_inheritable(number, True)  # by the processes of a sweep
    else:
        os.dup2(null, number)
        os.close(null)
