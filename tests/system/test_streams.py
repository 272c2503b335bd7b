"""Standard streams of a command: closed, full, or a terminal that foreign text must not reach raw."""

import io
import os
import pty
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO, cast

import pytest

from experiments.config import RunFailed
from experiments.config.problems import visible
from experiments.system.streams import OutputLost, Stream, wrapped
from experiments.system.terminal import Console, say

BELL = "\x07"
HOSTILE = "a\x1b]0;title\x07\x1b[2Jb\x9b\u202ec"


@pytest.fixture
def terminal() -> Iterator[tuple[TextIO, int]]:
    """A stream on a pseudo terminal, and the other end."""
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w", encoding="utf-8") as stream:
        yield stream, ours
    os.close(ours)


def test_control_characters_do_not_reach_a_terminal(terminal: tuple[TextIO, int]) -> None:
    stream = Stream(terminal[0], escapes=True, optional=False)
    print(HOSTILE, file=cast(TextIO, stream))
    stream.flush()
    assert os.read(terminal[1], 9999).decode().rstrip() == visible(HOSTILE)


def test_in_a_file_data_stays_what_it_is(tmp_path: Path) -> None:
    with (tmp_path / "out.csv").open("w") as file:
        print(HOSTILE, file=cast(TextIO, Stream(file, escapes=True, optional=False)))
    assert (tmp_path / "out.csv").read_text() == HOSTILE + "\n"


def test_a_console_sends_its_own_codes_and_no_others(terminal: tuple[TextIO, int]) -> None:
    stream = Stream(terminal[0], escapes=True, optional=False)
    console = Console(file=stream.without_escapes(), width=80, color_system="standard")
    say(console, HOSTILE, style="red")
    console.print(f"[bold]{HOSTILE}[/bold]", highlight=False)  # of which rich itself leaves out the bell
    shown = ""
    while shown.count("\n") < 2:  # a pseudo terminal may hand over one line at a time
        shown += os.read(terminal[1], 9999).decode()
    assert shown.split() == [
        f"\x1b[31m{visible(HOSTILE)}\x1b[0m",
        f"\x1b[1m{visible(HOSTILE.replace(BELL, ''))}\x1b[0m",
    ]


@pytest.mark.parametrize(("terminal_width", "lines"), [(20, 2), (None, 1)])
def test_lines_are_broken_between_words_on_a_terminal_only(terminal_width: int | None, lines: int) -> None:
    text = io.StringIO()
    console = Console(file=text, width=terminal_width or 20, force_terminal=terminal_width is not None)
    say(console, "some words that are long")
    assert len(text.getvalue().splitlines()) == lines
    assert all(word in text.getvalue() for word in ("some", "words", "that", "are", "long"))


def test_a_message_on_a_terminal_is_broken_between_words_but_not_its_remedy(terminal: tuple[TextIO, int]) -> None:
    remedy = "       try  " + "x=" + "y " * 60
    lines = wrapped("error: key: " + "word " * 30 + "\n" + remedy, terminal[0]).splitlines()
    assert lines[-1] == remedy
    assert all(len(line) <= 80 and set(line.removeprefix("error: key:").split()) <= {"word"} for line in lines[:-1])
    assert lines[1].startswith("       word")


def test_a_line_that_no_program_reads_ends_the_command() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as pipe:
        stream = Stream(pipe, escapes=True, optional=False)
        with pytest.raises(RunFailed, match="broken pipe: the program that reads the output has ended"):
            say(Console(file=cast(TextIO, stream)), "epoch 1/2")
        print("lost", file=cast(TextIO, stream), flush=True)


def test_output_that_cannot_be_written_is_an_error_once() -> None:
    with open("/dev/full", "w") as full:
        stream = Stream(full, escapes=True, optional=False)
        stream.write("text")
        with pytest.raises(OutputLost, match="the output cannot be written: No space left on device"):
            stream.flush()
        stream.write("more")
        stream.flush()
    with open("/dev/full", "w") as full:
        messages: Any = Stream(full, escapes=True, optional=True)
        print("text", file=messages, flush=True)
