"""What was typed, read as overrides one by one; Hydra itself stops at the first that it cannot read."""

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.errors import OverrideParseException

from experiments.config import sweep_values
from experiments.config.files import DEEPEST
from experiments.config.keys import is_group
from experiments.config.problems import NAME_LENGTH, Problem, Refused, first_lines, quoted, shown

QUOTED = re.compile(r"""'(\\.|[^'\\])*'|"(\\.|[^"\\])*\"""")
KEY = r"\+{0,2}[A-Za-z_][\w./@-]*"
CHOICE = re.compile(r"choice\((.*)\)")  # which takes no null in Hydra's grammar; values without it do
HINT = "put quotes around a value with brackets, blanks or commas: 'KEY=[A, B]'"
LENGTH = 1000  # characters of the longest word that a remedy is looked for


def ids_as_text(override: str) -> str:
    """Quote ids of runs that Hydra would read as floating-point numbers: 12e45678 would be infinity.

    Whole numbers are left to `commands.RunId`, which has to turn back those of YAML files anyway.
    """
    key, equals, value = override.partition("=")
    if key not in ("run", "runs", "sweep"):
        return override
    return key + equals + re.sub(r"(?<![\w.@'\"])\d+e\d+(?![\w.@'\"])", r"'\g<0>'", value)


def without_plus(override: str) -> str:
    """Strip the + from ``+experiment.KEY``, which is no config key: Hydra would add a section that nothing reads."""
    return override.lstrip("+") if re.match(r"\++experiment\.", override) else override


def nested_too_deeply(override: str) -> str:
    """Why Hydra must not parse an override, for which it would take up to minutes; empty if it may."""
    depth = deepest = 0
    for bracket in re.findall(r"[\[{(\]})]", re.sub(QUOTED, "", override)):
        depth += 1 if bracket in "[{(" else -1
        deepest = max(deepest, depth)
    return f"its brackets are nested more than {DEEPEST} levels deep" if deepest > DEEPEST else ""


def read(text: str, parser: OverridesParser) -> Override:
    """Read an override.

    Raises:
        OverrideParseException: It cannot be read, or its brackets are nested too deeply.
    """
    if what := nested_too_deeply(text):
        raise OverrideParseException(text, what)
    if not text.partition("=")[0].strip("+~"):
        raise OverrideParseException(text, "no key")
    try:
        return parser.parse_overrides([text])[0]
    except (ValueError, RecursionError) as error:  # a number of more digits than Python reads
        raise OverrideParseException(text, str(error)) from error
    except AttributeError as error:  # with PYTHONOPTIMIZE, Hydra's own checks are left out
        raise OverrideParseException(text, "it cannot be read") from error


def read_param(key: str, value: Any, where: str, parser: OverridesParser) -> Override:
    """Read a value of ``hydra.sweeper.params`` as an override.

    Args:
        key: Whose values it gives.
        value: Text as on the command line, or a single value.
        where: Its place, for messages.
        parser: Hydra's.

    Raises:
        Refused: It cannot be read.
    """
    try:
        return read(sweep_values.spaced(f"{key}={value if isinstance(value, str) else shown(value)}"), parser)
    except OverrideParseException as error:
        what = f"cannot be read: {first_lines(error).partition(' See https')[0]}"
        if chosen := CHOICE.fullmatch(str(value)):
            what = f"got {value}, which cannot be read; write {chosen[1]}"
        raise Refused(Problem(where, what)) from error
    except Refused as refused:  # the remedy is for the command line
        raise Refused([replace(problem, where=where, remedy="") for problem in refused.problems]) from refused


def parse(overrides: Sequence[str], loader: ConfigLoader, sweep: bool) -> tuple[list[Override], list[Problem]]:
    """Read all overrides of a command.

    Args:
        overrides: As they were typed.
        loader: Where configs are looked for.
        sweep: Whether an override may give several values: each choice of a group is given, and one value of a key.

    Returns:
        The overrides, and a problem for each that cannot be read.
    """
    parser = OverridesParser.create(loader)
    parsed, problems, left = list[Override](), list[Problem](), list(overrides)
    while left:
        text = left.pop(0)
        try:
            override = read(sweep_values.spaced(text), parser)
            if any(len(os.fsencode(part)) > NAME_LENGTH for part in re.split("[./@]", override.get_key_element())):
                groups = ", ".join(loader.list_groups(""))
                raise Refused(Problem(override.get_key_element(), f"there is no such key; known: {groups}, …"))
            about_itself = override.key_or_group.startswith(("hydra.", "hydra/"))  # of that, a sweep has one value
            several = sweep and override.is_sweep_override() and not about_itself
            parsed += _one_by_one(override, text, loader, parser) if several else [override]
        except OverrideParseException as error:
            problem, words = _unreadable([text, *left], error, parser)
            problems.append(problem)
            del left[: words - 1]
        except Refused as refused:
            problems += refused.problems
    return parsed, problems


def _one_by_one(override: Override, text: str, loader: ConfigLoader, parser: OverridesParser) -> list[Override]:
    """Each choice of a group that is swept, and one value of a key."""
    sweep_values.count(override)
    given, key, chooses = override.value(), override.get_key_element(), is_group(loader, override.key_or_group)
    if isinstance(given, RangeSweep | IntervalSweep):
        values = [str(given.start)]  # of what may be too long to be listed
    else:
        values = list(override.sweep_string_iterator())
    found = parser.parse_overrides([f"{key}={value}" for value in (values if chooses else values[:1])])
    if not chooses:
        found[0].input_line = text  # what a remedy keeps
    return found


def _unreadable(words: Sequence[str], error: Exception, parser: OverridesParser) -> tuple[Problem, int]:
    """Say why a word is no override, and what was probably meant.

    Args:
        words: The word, and those that were typed after it.
        error: Why it cannot be read.
        parser: Hydra's.

    Returns:
        The problem, and the number of words that it covers.
    """
    if what := nested_too_deeply(words[0]):
        return Problem(words[0].partition("=")[0], what), 1
    reason = re.sub(r"^(Error parsing .*\n|LexerNoViableAltException: )", "", str(error)).splitlines()[0]
    what = f"cannot be read as KEY=VALUE ({reason.partition(' expecting ')[0]})"
    for meant, count in _candidates(words) if len(words[0]) < LENGTH else ():
        with suppress(OverrideParseException):
            read(meant, parser)
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
    if chosen := CHOICE.fullmatch(value):
        return [(f"{key}={chosen[1]}", 1)]
    if value.startswith("log("):
        return [(f"{key}=tag({value.replace('(', ',', 1)}", 1)]
    if re.search(r"[\[\](){}]", value):  # which the shell has split at its blanks
        return [(" ".join(words[:count]), count) for count in range(2, min(len(words), 20) + 1)]
    return [(first.rstrip(",;"), 1), *([] if set(value) & set("'\"") else [(f"{key}={shown(value)}", 1)])]
