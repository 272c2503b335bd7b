"""Reads the space of a search from overrides, and from the ``params`` of a file."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from experiments.config import Problem, Refused, sweep_values
from experiments.config.overrides import read_param
from experiments.config.problems import assign, quoted
from experiments.sweeps.jobs import Job
from experiments.sweeps.search.space import Dimension, Space, exact

PARAMS = "hydra.sweeper.params"
# What cannot be searched: the start of a key, and why.
NOT_SEARCHED = {
    "seed": "a seed is no hyperparameter: a search would choose the luckiest one; each trial can be run with several",
    "hydra": "is about the search itself, which has one value of it",
    "tracking": "says where runs are recorded, which is one place for a search",
    "resume": "is about the search itself, which has one value of it",
    "trust": "packages are trusted on the command line only",
}


def parse(overrides: Sequence[str], params: Mapping[str, Any], loader: ConfigLoader) -> Space:
    """Read a space.

    Args:
        overrides: Of the command line. They replace what `params` says of the same key.
        params: Of a file: values by key, as text; a mapping of choices to more of the same where keys depend on one.
        loader: Hydra's, of the files that a group has.

    Raises:
        Refused: With all problems.
    """
    problems = list[Problem]()
    parser = OverridesParser.create(loader)
    typed = {item.get_key_element().lstrip("+"): item for item in parser.parse_overrides(list(overrides))}
    dimensions = _of_params(params, PARAMS, "", parser, problems)
    fixed = [str(item.input_line) for item in typed.values() if not item.is_sweep_override()]
    for key, item in typed.items():
        branches = next((each.branches for each in dimensions if each.key.lstrip("+") == key), {})
        dimensions = _replaced(dimensions, key, str(item.input_line).partition("=")[2])
        if item.is_sweep_override() and (found := _dimension(item, "", key, problems)):
            kept = {end: branches[end] for end in found.ends if end in branches}
            others = [each for each in dimensions if each.key.lstrip("+") != key]
            dimensions = [*others, replace(found, branches=kept)]
    searched = {dimension.key.lstrip("+") for dimension in dimensions}
    space = Space(
        [each for each in dimensions if not each.is_fixed],
        [text for text in fixed if text.partition("=")[0].lstrip("+") not in searched],
    )
    fixed_by_params = [f"{each.key}={each.ends[0]}" for each in dimensions if each.is_fixed]
    space = replace(space, fixed=[*fixed_by_params, *space.fixed])
    problems += [problem for dimension in space.all() for problem in _not_searched(dimension.key)]
    problems += _repeated(space.dimensions, [])
    if not problems and not space.dimensions:
        example = "'optimizer.learning_rate=tag(log,interval(1e-4,1e-1))'"
        lists = [key for key, value in params.items() if isinstance(value, list)]
        what = f"; {lists[0]} is one value, a list, where several are text, as in '16,32'" if lists else ""
        problems.append(Problem(PARAMS, f"there is no key to search{what}", example))
    if problems:
        raise Refused(list(dict.fromkeys(problems)))
    return space


def _replaced(dimensions: Sequence[Dimension], key: str, value: str) -> list[Dimension]:
    """The dimensions without a key that the command line sets; a choice keeps the branch that this is."""
    kept = list[Dimension]()
    for each in dimensions:
        branches = {choice: _replaced(branch, key, value) for choice, branch in each.branches.items()}
        if each.key.lstrip("+") != key:
            kept.append(replace(each, branches=branches))
        elif value in branches:
            only = CategoricalDistribution([value])
            kept.append(replace(each, text=value, distribution=only, branches={value: branches[value]}))
    return kept


def _of_params(
    params: Mapping[str, Any], where: str, prefix: str, parser: OverridesParser, problems: list[Problem]
) -> list[Dimension]:
    found = list[Dimension]()
    for key, value in params.items():
        place, name = f"{where}.{key}", f"{prefix}{key}"
        if problem := _misplaced(key, value, place, parser):
            problems.append(problem)
        elif isinstance(value, Mapping):
            branches = {
                str(choice): _of_params(inner or {}, f"{place}.{choice}", f"{name}={choice}:", parser, problems)
                for choice, inner in value.items()
            }
            text = ",".join(branches)
            found.append(Dimension(key, name, text, CategoricalDistribution(list(branches)), branches))
        else:
            found += _of_text(key, value, place, prefix, parser, problems)
    return found


def _misplaced(key: str, value: Any, place: str, parser: OverridesParser) -> Problem | None:
    """Why a value of `params` has no meaning; None: it has one."""
    if "," in key:
        return Problem(place, "a search has no keys that change together; a grid has: hydra/sweeper=grid")
    if isinstance(value, Mapping):
        inner = [each for each in value.values() if each is not None and not isinstance(each, Mapping)]
        if not value or inner:
            what = f"got {value}, expected choices, each with the keys that it brings along, or null"
            return Problem(place, what)
    if isinstance(value, list) and parser.config_loader and parser.config_loader.get_group_options(key):
        texts = ",".join(map(str, value))
        return Problem(place, f"got {value}, expected the choices as text: {texts}") if key != "callbacks" else None
    return None


def _of_text(
    key: str, value: Any, place: str, prefix: str, parser: OverridesParser, problems: list[Problem]
) -> Iterator[Dimension]:
    """Yield the dimension of one entry; a fixed entry becomes a dimension with that one value."""
    try:
        parsed = read_param(key, value, place, parser)
    except Refused as refused:
        problems += refused.problems
        return
    if not parsed.is_sweep_override():
        own = str(parsed.input_line).partition("=")[2]
        yield Dimension(key, f"{prefix}{key}", own, CategoricalDistribution([own]), is_fixed=True)
    elif dimension := _dimension(parsed, prefix, place, problems):
        yield dimension


def _dimension(item: Override, prefix: str, where: str, problems: list[Problem]) -> Dimension | None:
    """The dimension of an override; None where it cannot be one, which becomes a problem."""
    key, text = item.get_key_element(), str(item.input_line).partition("=")[2]
    try:
        distribution = _distribution(item, text)
    except Refused as refused:
        problems += [replace(problem, where=where) for problem in refused.problems]
        return None
    return Dimension(key, prefix + key, text, distribution)


def _distribution(item: Override, text: str) -> BaseDistribution:
    value: Any = item.value()
    key, tags = item.get_key_element(), getattr(value, "tags", set[str]())
    is_range, is_interval = isinstance(value, RangeSweep), isinstance(value, IntervalSweep)
    if unknown := tags - {"log"}:
        raise Refused(Problem(key, f"got the tag {min(unknown)}; the only tag of a search is log"))
    if getattr(value, "shuffle", False):
        raise Refused(Problem(key, f"got {text}, but a search has an order of its own"))
    if not is_range and not is_interval:
        if tags:
            raise Refused(Problem(key, f"got {text}, but log is for numbers between two ends", ""))
        sweep_values.count(item)
        return CategoricalDistribution(list(dict.fromkeys(item.sweep_string_iterator())))
    if is_range:
        count, step = sweep_values.count(item), abs(value.step)
        first, last = value.start or 0, exact(value.start or 0, value.step, count - 1)
        low, high = min(first, last), max(first, last)
    else:
        low, high, step = value.start, value.end, None
    if low > high:
        raise Refused(Problem(key, f"got {text}, which ends before it starts", quoted(f"{key}=interval({high},{low})")))
    whole = isinstance(low, int) and isinstance(high, int)
    log = "log" in tags
    if log and (low <= 0 or (step or 1) != 1 or (step is not None and not whole)):
        what = f"got {text}, but a logarithmic scale starts above 0, and has no step other than 1"
        raise Refused(
            Problem(key, what, quoted(f"{key}=tag(log,interval({high / 1000:g},{high:g}))") if high > 0 else "")
        )
    if whole:
        return IntDistribution(low, high, log=log, step=step or 1)
    with warnings.catch_warnings(action="ignore"):  # of a last step that 16 digits cannot hold, which is left out
        return FloatDistribution(float(low), float(high), log=log, step=None if step is None else float(step))


def _not_searched(key: str) -> Iterator[Problem]:
    for start, why in NOT_SEARCHED.items():
        if key.lstrip("+") == start or key.lstrip("+").startswith((f"{start}.", f"{start}/")):
            remedy = assign("hydra.sweeper.seeds", [0, 1, 2]) if start == "seed" else ""
            yield Problem(key, why, remedy)


def _repeated(dimensions: Sequence[Dimension], above: Sequence[str]) -> Iterator[Problem]:
    """Keys that are searched twice at once, so that only one of their values would count."""
    keys = list(above)
    for key in (each.key.lstrip("+") for each in dimensions if not each.is_fixed):
        if key in keys:
            yield Problem(key, "is searched twice at once: the space has it a second time")
        keys.append(key)
    for dimension in dimensions:
        for branch in dimension.branches.values():
            yield from _repeated(branch, keys)


def check_corners(space: Space, prepare: Callable[..., list[Job]]) -> list[Job]:
    """Compose and check the corners of a space.

    Raises:
        Refused: Some cannot run; the problems say what was typed for a key, not only at which end it is wrong.
    """
    try:
        return prepare(space.corners(), common=space.fixed)
    except Refused as refused:
        raise Refused(list(dict.fromkeys(_of_space(problem, space) for problem in refused.problems))) from refused


def _of_space(problem: Problem, space: Space) -> Problem:
    for each in space.all():
        key = each.key.lstrip("+")
        if problem.where == key and problem.what.startswith("there is no such key; it is a key of "):
            what = "not all choices have this key; in a file, keys can depend on a choice, as in conf/search/mlp.yaml"
            return Problem(key, what)
        if problem.where == key and not isinstance(each.distribution, CategoricalDistribution):
            whole = "expected a whole number" in problem.what and isinstance(each.distribution, FloatDistribution)
            return replace(problem, remedy=quoted(f"{each.key}=int({each.text})") if whole else "")
    return problem
