"""The values that an override gives a sweep: how many, counted without listing them."""

import math
from fractions import Fraction

from hydra.core.override_parser.types import Glob, Override, RangeSweep

from experiments.config.problems import Problem, Refused, quoted, suggest


def count(override: Override) -> int:
    """Count the values of an override, without listing them: a range can have more than fit into memory.

    Raises:
        Refused: There are none, or the bounds of a range are no finite numbers.
    """
    value = override.value()
    if not override.is_sweep_override():
        return 1
    if isinstance(value, RangeSweep):
        return _count_range(override, value)
    if isinstance(value, Glob):
        return _count_matches(override, value)
    if not override.is_discrete_sweep():
        return 1
    if not (number := len(list(override.sweep_string_iterator()))):
        raise Refused(Problem(override.get_key_element(), f"{_text(override)} gives no value"))
    return number


def _count_range(override: Override, value: RangeSweep) -> int:
    key, text = override.get_key_element(), _text(override)
    bounds = (value.start, value.stop, value.step)
    if any(bound is None or (isinstance(bound, float) and not math.isfinite(bound)) for bound in bounds):
        raise Refused(Problem(key, f"got {text}, expected finite numbers", quoted(f"{key}=range(3)")))
    start, stop, step = (Fraction(bound or 0) for bound in bounds)
    if step == 0:
        remedy = f"{key}=range({value.start},{value.stop})"
        raise Refused(Problem(key, f"got {text}, expected a step other than 0", quoted(remedy)))
    if (number := math.ceil((stop - start) / step)) > 0:
        return number
    what = f"{text} gives no value: range(START,STOP,STEP) ends before STOP"
    remedy = f"{key}=range({value.start},{value.stop},{-value.step})" if start != stop else ""
    raise Refused(Problem(key, what, remedy and quoted(remedy)))


def _count_matches(override: Override, value: Glob) -> int:
    assert override.config_loader is not None
    key, known = override.get_key_element(), override.config_loader.get_group_options(override.key_or_group)
    if not known:
        raise Refused(Problem(key, f"got {_text(override)}, but {key} is not a group of files that it could match"))
    if not (matches := value.filter(known)):
        word = " ".join(value.include).strip("*")
        raise Refused(Problem(key, f"{_text(override)} matches none of the choices; {suggest(word, known)}"))
    return len(matches)


def _text(override: Override) -> str:
    return str(override.input_line).partition("=")[2]
