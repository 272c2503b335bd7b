"""Every combination of the values given, each checked before the first one starts."""

import math
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, product
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.errors import OverrideParseException

from experiments.config import Problem, Refused, sweep_values
from experiments.config.overrides import read, read_param
from experiments.config.problems import assign, first_lines, shown
from experiments.config.schema import Count, Section
from experiments.sweeps.jobs import Job
from experiments.sweeps.proposers import Proposer

# Up to so many runs, the message about a sweep that is too large says how to allow it.
LARGEST_REMEDY = 100_000
PARAMS = "hydra.sweeper.params"


class Settings(Section):
    """Keys of ``hydra.sweeper``; ``conf/hydra/sweeper/grid.yaml`` says what they mean."""

    params: dict[str, Any] | list[dict[str, Any]] | None = None
    skip_invalid: bool = False
    max_runs: Count = 1000


class Grid(Proposer):
    """Proposes jobs in their order, whatever comes of them."""

    def __init__(self, jobs: Sequence[Job], overrides: Sequence[str] = (), swept: Mapping[str, str] | None = None):
        super().__init__(jobs, overrides, swept or {}, len(jobs))
        self._proposed = 0

    def next(self) -> Job | None:
        """The next one, if any is left."""
        self._proposed += 1
        return self.jobs[self._proposed - 1] if self._proposed <= len(self.jobs) else None


def propose(
    settings: Settings, overrides: Sequence[str], loader: ConfigLoader, prepare: Callable[..., list[Job]]
) -> Grid:
    """Expand, compose and check all combinations, of several grids one after the other.

    Raises:
        Refused: A combination cannot run, or there are too many.
    """
    grids = settings.params if isinstance(settings.params, list) else [settings.params or {}]
    places = [f"{PARAMS}[{number}]" for number in range(len(grids))] if len(grids) > 1 else [PARAMS]
    typed, wanted, listed, values = list(overrides), list[list[str]](), list[str](), dict[str, list[str]]()
    for params, place in zip(grids, places, strict=True):
        texts, together = preset_overrides(params, loader, place)
        parser = OverridesParser.create(loader)
        together = _without(together, {each.get_key_element() for each in parser.parse_overrides(typed)})
        parsed = parser.parse_overrides([*texts, *typed])
        wanted += combinations(parsed, settings.max_runs, together, before=len(wanted))
        listed += [*texts, *(f"{key}={shown(value)}" for key, value in together.items())]
        fixed = params if len(grids) > 1 else ()  # other grids may have other values
        for key, text in (swept(parsed, fixed) | {key: shown(value) for key, value in together.items()}).items():
            values.setdefault(key, []).append(text)
    jobs = prepare(wanted, skip_invalid=settings.skip_invalid)
    return Grid(
        without_repeats(jobs), [*listed, *typed], {key: " | ".join(dict.fromkeys(values[key])) for key in values}
    )


Together = dict[str, list[list[str]]]
"""Keys that change together, as ``batch_size,epochs``, and the overrides of each of their values."""


def preset_overrides(
    params: Mapping[str, Any], loader: ConfigLoader, where: str = PARAMS
) -> tuple[list[str], Together]:
    """Write the values of a preset, ``hydra.sweeper.params``, as overrides.

    Raises:
        Refused: An override cannot be read, or gives no values.
    """
    overrides, together, problems = list[str](), Together(), [*_repeated(params, where)]
    parser = OverridesParser.create(loader)
    for key, value in params.items():
        place = f"{where}.{key}"
        try:
            if "," in key:
                together[key] = _together(key, value)
                for text in (text for values in together[key] for text in values):
                    read(text, parser)
                continue
            if isinstance(value, Mapping):
                what = f"got {value}, expected the values as text; only a search has keys that depend on a choice"
                raise Refused(Problem(place, what, "hydra/sweeper=optuna"))
            parsed = read_param(key, value, place, parser)
            sweep_values.count(parsed)
            overrides.append(str(parsed.input_line))
        except OverrideParseException as error:
            problems.append(Problem(place, f"cannot be read: {first_lines(error).partition(' See https')[0]}"))
        except Refused as refused:
            remedies = ("hydra/sweeper=optuna",)
            problems += [
                replace(item, where=place, remedy=item.remedy if item.remedy in remedies else "")
                for item in refused.problems
            ]
    if problems:
        raise Refused(problems)
    return overrides, together


def _together(key: str, value: Any) -> list[list[str]]:
    keys = [each.strip() for each in key.split(",")]
    if not isinstance(value, list) or not all(isinstance(each, list) and len(each) == len(keys) for each in value):
        what = f"got {value}, expected a list of lists with a value for each of {', '.join(keys)}"
        raise Refused(Problem(key, what))
    return [[f"{name}={shown(item)}" for name, item in zip(keys, each, strict=True)] for each in value]


def _repeated(params: Mapping[str, Any], where: str) -> Iterator[Problem]:
    """Keys that come twice, so that only one of their values would count."""
    seen = set[str]()
    for key in params:
        for name in (each.strip().lstrip("+") for each in key.split(",")):
            if name in seen:
                yield Problem(f"{where}.{key}", f"has {name} a second time")
            seen.add(name)


def _without(together: Together, keys: Collection[str]) -> Together:
    """The same without keys that the command line sets."""
    found = Together()
    for names, values in together.items():
        kept = [place for place, name in enumerate(names.split(",")) if name.strip() not in keys]
        if kept:
            found[",".join(names.split(",")[place] for place in kept)] = [
                list(some) for some in dict.fromkeys(tuple(each[place] for place in kept) for each in values)
            ]
    return found


def combinations(
    overrides: Sequence[Override], max_runs: int, together: Mapping[str, list[list[str]]] | None = None, before: int = 0
) -> list[list[str]]:
    """Expand a grid into one list of overrides per job. A repeated key takes its last value.

    Args:
        overrides: Of the grid.
        max_runs: How many jobs there may be.
        together: Overrides of keys that change together, by these keys, in the order of their values.
        before: Number of jobs of other grids.

    Raises:
        Refused: There are more jobs than `max_runs`, or an override gives no values.
    """
    by_key = _last(overrides)
    if problems := [problem for override in by_key.values() for problem in _interval(override)]:
        raise Refused(problems)
    zipped = together or {}
    counts = {key: sweep_values.count(override) for key, override in by_key.items()}
    counts |= {key: len(values) for key, values in zipped.items()}
    if (number := before + math.prod(counts.values())) > max_runs:
        largest = sorted((key for key in counts if counts[key] > 1), key=lambda key: -counts[key])
        values = ", ".join(f"{_shown(counts[key])} values of {key}" for key in largest[:4]) + ", …" * bool(largest[4:])
        what = f"the sweep has {_shown(number)} runs ({values}), more than the {max_runs:,} that are allowed"
        remedy = assign("hydra.sweeper.max_runs", number) if number <= LARGEST_REMEDY else ""
        raise Refused(Problem("hydra.sweeper.max_runs", what, remedy))
    values_by_key = [
        [[f"{override.get_key_element()}={value}"] for value in override.sweep_string_iterator()]
        if override.is_sweep_override()
        else [[str(override.input_line)]]
        for override in by_key.values()
    ]
    return [list(chain(*job)) for job in product(*zipped.values(), *values_by_key)]


def _last(overrides: Sequence[Override]) -> dict[str, Override]:
    """By key, its last override, which replaces those before."""
    return {override.get_key_element().lstrip("+"): override for override in overrides}


def _shown(number: int) -> str:
    return f"{number:,}" if number < 10**12 else f"10^{math.floor(math.log10(number))}"


def _interval(override: Override) -> Iterator[Problem]:
    interval = override.value()
    if isinstance(interval, IntervalSweep):
        what = "an interval has no values to try one by one; give some, or search"
        yield Problem(override.get_key_element(), what, "hydra/sweeper=optuna")


def without_repeats(jobs: Sequence[Job]) -> list[Job]:
    """Keep one job per config: the same run twice would count as two seeds."""
    kept: dict[str, Job] = {}
    for job in jobs:
        kept.setdefault(job.config.model_dump_json(), job)
    if repeats := len(jobs) - len(kept):
        print(f"{repeats} of {len(jobs)} combinations repeat another one and are left out", file=sys.stderr)
    return list(kept.values())


def swept(overrides: Sequence[Override], keys: Collection[str] = ()) -> dict[str, str]:
    """The values that are swept, and those of these keys, by key, as they were typed."""
    return {
        override.get_key_element(): str(override.input_line).partition("=")[2]
        for override in _last(overrides).values()
        if override.is_sweep_override() or override.get_key_element() in keys
    }
