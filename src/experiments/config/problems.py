"""A problem of the user's input, and how it is shown."""

import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

from hydra.core.override_parser.types import Quote, QuotedString

# Text that Hydra reads as text without quotes, or as a reference to another key.
PLAIN = r"(?!(?i:null|true|false|-?nan|-?inf)$)-?[A-Za-z_/][A-Za-z0-9_./:-]*|\$\{[a-z0-9_.]+\}"
# What a terminal would obey instead of showing it: control characters but tab and newline, marks that change the
# direction of text; and halves of characters, which no encoding can write.
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
# How much of a refusal is shown: lines, characters of a line, and of a remedy, which is left out rather than cut.
LINES, LENGTH, REMEDY_LENGTH = 40, 600, 2000
NAME_LENGTH = 255  # bytes of a file's name that file systems take
# What people type who know other tools.
ABBREVIATIONS = {
    "lr": "learning_rate",
    "bs": "batch_size",
    "mse": "mean_squared_error",
    "mae": "mean_absolute_error",
    "bce": "binary_crossentropy",
    "ce": "sparse_categorical_crossentropy",
    "kld": "kl_divergence",
    "layers": "layer_sizes",
}
BEYOND_64_BITS = "a whole number of more than 64 bits, expected one within -2^63 and 2^63"


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with the input.

    Attributes:
        where: The dotted key, file or run that it is about.
        what: What came and what was expected.
        remedy: What to type instead, without the command; empty where the message itself is the remedy.
    """

    where: str
    what: str
    remedy: str = ""

    def __str__(self) -> str:
        line = cut(on_one_line(f"{cut(self.where, LENGTH // 3)}: {self.what}"), LENGTH)
        typable = len(self.remedy) <= REMEDY_LENGTH and self.remedy == on_one_line(self.remedy)
        remedy = f"\n       try  {self.remedy}" if self.remedy and typable else ""
        return f"error: {line}{remedy}"


class Refused(Exception):  # noqa: N818 - it is the outcome's name
    """The input cannot be used. Nothing was recorded. The command ends with exit status 2."""

    def __init__(self, problems: Problem | Sequence[Problem]) -> None:
        self.problems = [problems] if isinstance(problems, Problem) else list(problems)
        lines, fitting, rest = 0, self.problems, list[str]()
        for number, problem in enumerate(self.problems):
            lines += str(problem).count("\n") + 1
            if lines > LINES - (number + 1 < len(self.problems)):
                fitting, rest = self.problems[:number], [f"error: … and {len(self.problems) - number:,} more"]
                break
        super().__init__("\n".join([*map(str, _remedies_once(fitting)), *rest]))

    @classmethod
    def by_a_command(cls, message: str) -> "Refused":
        """The refusal of a command that was started, with its message."""
        refused = cls([])
        refused.args = (message,)
        return refused

    @property
    def reason(self) -> str:
        """The problems on one line: why a run of a sweep failed."""
        problems = _remedies_once(self.problems)
        lines = (f"{item.where}: {item.what}" + f" (try {item.remedy})" * bool(item.remedy) for item in problems)
        return cut(on_one_line("; ".join(lines)), LENGTH)


def _remedies_once(problems: Sequence[Problem]) -> list[Problem]:
    """The problems; a remedy that several share stays with the last of them only."""
    last = {problem.remedy: number for number, problem in enumerate(problems)}
    return [
        problem if last[problem.remedy] == number else replace(problem, remedy="")
        for number, problem in enumerate(problems)
    ]


class RunFailed(Exception):  # noqa: N818
    """A run started and could not be finished. The message is the reason. The command ends with exit status 1."""


def first_lines(error: Exception) -> str:
    """What Hydra says, up to its first blank line or OmegaConf's details, on one line."""
    if isinstance(error, RecursionError):
        return "config files choose each other in a circle, or are nested too deeply"
    return " ".join(re.split(r"\n\n|\n +full_key", str(error))[0].split()) or type(error).__name__


def visible(text: str) -> str:
    """Write control characters as their Python escapes, so that a terminal shows them instead of obeying them."""
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def on_one_line(text: str) -> str:
    """The same with line breaks made visible, too."""
    return visible(text).replace("\n", "\\n")


def cut(text: str, length: int) -> str:
    """Leave out the middle of a text that is too long."""
    return text if len(text) <= length else f"{text[: length * 2 // 3]} … {text[-length // 4 :]}"


def closest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that was probably meant, or None where none is near."""
    by_lower_case = {choice.lower(): choice for choice in sorted(known)}
    if (meant := ABBREVIATIONS.get(word.lower())) in by_lower_case:
        return by_lower_case[meant]
    close = get_close_matches(word.lower(), by_lower_case, n=5)
    # For adma, difflib prefers adamax to adam; but swapped letters are the likelier slip.
    close.sort(key=lambda choice: sorted(choice) != sorted(word.lower()))
    return by_lower_case[close[0]] if close else None


def suggest(word: str, known: Iterable[str]) -> str:
    """Return ``did you mean 'x'?`` for a near miss, else the list of what is known."""
    choices = sorted(known)
    if (meant := closest(word, choices)) is not None:
        return f"did you mean '{meant}'?"
    if not choices:
        return "there are none"
    return f"known: {', '.join(choices[:20])}{', …' if len(choices) > 20 else ''}"


def dotted(path: Sequence[str | int]) -> str:
    """Write a path as users type it: ``model.layer_sizes[1]``."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")


def key_of(path: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """The part of a path that an override can name: up to the first entry of a list."""
    return path[: next((number for number, part in enumerate(path) if isinstance(part, int)), len(path))]


def beyond_64_bits(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Find the whole numbers that no library can hold, and Python itself may refuse to print.

    Returns:
        Their paths; of a key of a mapping, that of the mapping.
    """
    if isinstance(value, dict | list):
        if any(isinstance(key, int) and abs(key) >= 2**63 for key in value if isinstance(value, dict)):
            yield path
            return
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from beyond_64_bits(inner, (*path, key))
    elif isinstance(value, int) and abs(value) >= 2**63:
        yield path


def shown(value: Any) -> str:
    """Write a value as Hydra reads it on the command line."""
    if isinstance(value, list):
        return "[" + ",".join(map(shown, value)) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{shown(item)}" for key, item in value.items()) + "}"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str) and not re.fullmatch(PLAIN, value):
        return QuotedString(value, Quote.single).with_quotes()
    return str(value)


def assign(key: str, value: Any) -> str:
    """Write an override as it is typed into a shell, quoted only where a shell needs it."""
    return quoted(f"{key}={shown(value)}")


def quoted(text: str) -> str:
    """Quote a word for the shell, if need be."""
    if re.fullmatch(r"[A-Za-z0-9_./:=,@%+~\[\]-]+", text):
        return text
    return f'"{text}"' if "'" in text and not re.search(r'["$`\\!]', text) else shlex.quote(text)
