"""Overrides that Hydra cannot read, and what was probably meant."""

import re
from collections.abc import Callable, Sequence

from hydra.errors import OverrideParseException

from experiments.config.problems import Problem, quoted, shown

KEY = r"\+{0,2}[A-Za-z_][\w./@-]*"
HINT = "put quotes around a value with brackets, blanks or commas: 'KEY=[A, B]'"
LENGTH = 1000  # of what a remedy is looked for


def explain(words: Sequence[str], error: Exception, readable: Callable[[str], bool]) -> tuple[Problem, int]:
    """Say why a word is no override.

    Args:
        words: The word, and those that were typed after it.
        error: Hydra's.
        readable: Whether Hydra can read an override.

    Returns:
        The problem, and of how many of the words it is.
    """
    reason = re.sub(r"^(Error parsing .*\n|LexerNoViableAltException: )", "", str(error)).splitlines()[0]
    what = f"cannot be read as KEY=VALUE ({reason.partition(' expecting ')[0]})"
    if isinstance(error, OverrideParseException) and len(words[0]) < LENGTH:
        for meant, count in _candidates(words):
            if readable(meant):
                return Problem(" ".join(words[:count]), what, quoted(meant)), count
    return Problem(words[0], f"{what}; {HINT}"), 1


def _candidates(words: Sequence[str]) -> list[tuple[str, int]]:
    """Overrides that may have been meant, the likeliest first, each with the number of words that it stands for."""
    first, following = words[0], words[1:4]
    key, equals, value = first.partition("=")
    if not re.fullmatch(KEY, key):
        colon = re.fullmatch(rf"({KEY}):([^:=]+)", first)
        return [(f"{colon[1]}={colon[2]}", 1)] if colon else []
    if not equals:
        joined = [("".join(words[:count]), count) for count in (2, 3) if len(words) >= count]  # epochs = 5
        spaced = [(text, count) for text, count in joined if re.fullmatch(rf"{KEY}=.+", text)]
        if following and re.fullmatch(r"[^-=][^=]*", following[0]):
            spaced.append((f"{first}={following[0]}", 2))
        return spaced
    if re.search(r"[\[\](){}]", value):  # which the shell has split at its blanks
        return [(" ".join(words[:count]), count) for count in range(2, min(len(words), 20) + 1)]
    return [(first.rstrip(",;"), 1), *([] if set(value) & set("'\"") else [(f"{key}={shown(value)}", 1)])]
