"""A problem of the user's input, and how it is shown."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches


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
        remedy = f"\n       try  {self.remedy}" if self.remedy else ""
        return f"error: {self.where}: {self.what}{remedy}"


class Refused(Exception):
    """The input cannot be used. Nothing was recorded. The command ends with exit status 2."""

    def __init__(self, problems: Problem | Sequence[Problem]) -> None:
        self.problems = [problems] if isinstance(problems, Problem) else list(problems)
        super().__init__("\n".join(map(str, self.problems)))


def suggest(word: str, known: Iterable[str]) -> str:
    """Return ``did you mean 'x'?`` for a near miss, else the list of what is known."""
    choices = sorted(known)
    by_lower_case = {choice.lower(): choice for choice in choices}
    close = get_close_matches(word.lower(), by_lower_case, n=1)
    if close:
        return f"did you mean '{by_lower_case[close[0]]}'?"
    shown = ", ".join(choices[:20])
    return f"known: {shown}{', …' if len(choices) > 20 else ''}"


class RunFailed(Exception):
    """A run started and could not be finished. The message is the reason. The command ends with exit status 1."""
