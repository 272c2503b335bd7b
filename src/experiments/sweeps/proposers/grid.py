"""Every combination of the values given, each checked before the first one starts."""

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.errors import OverrideParseException
from pydantic import Field

from experiments.config import Problem, Refused, sweep_values
from experiments.config.overrides import nested_too_deeply
from experiments.config.problems import assign, first_lines, quoted, shown
from experiments.config.schema import Count, Section
from experiments.sweeps.jobs import Job
from experiments.sweeps.proposers import Proposer

# Up to so many runs, the message about a sweep that is too large says how to allow it.
LARGEST_REMEDY = 100_000


class Settings(Section):
    """Keys of ``hydra.sweeper``; ``conf/hydra/sweeper/grid.yaml`` says what they mean."""

    params: dict[str, Any] = Field(default_factory=dict)
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
    """Expand, compose and check all combinations.

    Raises:
        Refused: A combination cannot run, or there are too many.
    """
    overrides = [*preset_overrides(settings.params, loader), *overrides]
    parsed = OverridesParser.create(loader).parse_overrides(overrides)
    jobs = prepare(combinations(parsed, settings.max_runs), skip_invalid=settings.skip_invalid)
    return Grid(without_repeats(jobs), overrides, swept(parsed))


def preset_overrides(params: Mapping[str, Any], loader: ConfigLoader) -> list[str]:
    """Write the values of a preset, ``hydra.sweeper.params``, as overrides.

    Raises:
        Refused: An override cannot be read, or gives no values.
    """
    overrides, problems = [], list[Problem]()
    for key, value in params.items():
        if isinstance(value, Mapping):
            what = (
                f"got {value}, expected the values as text, such as 'adam,sgd'; only a search has keys that depend on a"
            )
            problems.append(Problem(f"hydra.sweeper.params.{key}", f"{what} choice", "hydra/sweeper=optuna"))
            continue
        text = f"{key}={value if isinstance(value, str) else shown(value)}"
        overrides.append(text)
        if what := nested_too_deeply(text):
            problems.append(Problem(f"hydra.sweeper.params.{key}", what))
            continue
        try:
            sweep_values.count(OverridesParser.create(loader).parse_overrides([text])[0])
        except OverrideParseException as error:
            problems.append(
                Problem(
                    f"hydra.sweeper.params.{key}", f"cannot be read: {first_lines(error).partition(' See https')[0]}"
                )
            )
        except Refused as refused:
            problems += [replace(item, where=f"hydra.sweeper.params.{key}", remedy="") for item in refused.problems]
    if problems:
        raise Refused(problems)
    return overrides


def combinations(overrides: Sequence[Override], max_runs: int) -> list[list[str]]:
    """Expand the sweep into one list of overrides per job. A repeated key takes its last value.

    Raises:
        Refused: There are more jobs than `max_runs`, or an override gives no values.
    """
    by_key = {override.get_key_element(): override for override in overrides}
    if problems := [problem for override in by_key.values() for problem in _interval(override)]:
        raise Refused(problems)
    counts = {key: sweep_values.count(override) for key, override in by_key.items()}
    if (number := math.prod(counts.values())) > max_runs:
        largest = sorted((key for key in counts if counts[key] > 1), key=lambda key: -counts[key])
        values = ", ".join(f"{_shown(counts[key])} values of {key}" for key in largest[:4]) + ", …" * bool(largest[4:])
        what = f"the sweep has {_shown(number)} runs ({values}), more than the {max_runs:,} that are allowed"
        remedy = assign("hydra.sweeper.max_runs", number) if number <= LARGEST_REMEDY else ""
        raise Refused(Problem("hydra.sweeper.max_runs", what, remedy))
    values_by_key = [
        [f"{key}={value}" for value in override.sweep_string_iterator()]
        if override.is_sweep_override()
        else [str(override.input_line)]
        for key, override in by_key.items()
    ]
    return [list(job) for job in product(*values_by_key)]


def _shown(number: int) -> str:
    return f"{number:,}" if number < 10**12 else f"10^{math.floor(math.log10(number))}"


def _interval(override: Override) -> Iterator[Problem]:
    interval = override.value()
    if isinstance(interval, IntervalSweep):
        remedy = quoted(f"{override.get_key_element()}={interval.start},{interval.end}")
        yield Problem(override.get_key_element(), "an interval has no values to try one by one", remedy)


def without_repeats(jobs: Sequence[Job]) -> list[Job]:
    """Keep one job per config: the same run twice would count as two seeds."""
    kept: dict[str, Job] = {}
    for job in jobs:
        kept.setdefault(job.config.model_dump_json(), job)
    if repeats := len(jobs) - len(kept):
        print(f"{repeats} of {len(jobs)} combinations repeat another one and are left out", file=sys.stderr)
    return list(kept.values())


def swept(overrides: Sequence[Override]) -> dict[str, str]:
    """The values that are swept, by key, as they were typed."""
    return {
        override.get_key_element(): str(override.input_line).partition("=")[2]
        for override in overrides
        if override.is_sweep_override()
    }
