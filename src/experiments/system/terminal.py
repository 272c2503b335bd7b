"""The one place where text is printed: foreign text is shown as it is, and lines fit the terminal."""

import re
import sys
from collections.abc import Iterable
from typing import IO, Any

import rich.console
from rich.segment import Segment
from rich.text import Text

from experiments.config.problems import visible
from experiments.system.streams import Stream


class Console(rich.console.Console):
    """A rich console on which control characters within the text that is shown are visible, and have no effect."""

    def __init__(self, file: IO[str] | None = None, **settings: Any) -> None:
        if file is None and isinstance(sys.stdout, Stream):
            file = sys.stdout.without_escapes()
        super().__init__(file=file, **settings)

    def render(
        self, renderable: rich.console.RenderableType, options: rich.console.ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Render as rich does, and escape the control characters that are not rich's own."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(visible(segment.text), segment.style)


def short_numbers(text: str) -> str:
    """A text whose numbers with six decimals and more, as a search chooses them, have four digits that count."""
    return re.sub(r"(?<![\w.])\d+\.\d{6,}(e[+-]?\d+)?(?![\w.])", lambda found: f"{float(found[0]):.4g}", text)


def say(console: rich.console.Console, *lines: str, style: str = "", whole: bool = False) -> None:
    """Print lines: on a terminal broken between words, in a pipe as they are.

    Args:
        console: Where.
        lines: Plain text, without rich's markup.
        style: Of all of it.
        whole: Never break the lines, as they are commands to be copied.
    """
    for line in lines:
        console.print(Text(visible(line), style=style), soft_wrap=whole or not console.is_terminal)
