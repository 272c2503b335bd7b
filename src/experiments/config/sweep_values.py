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
    value, key, text = override.value(), override.get_key_element(), str(override.input_line).partition("=")[2]
    if isinstance(value, RangeSweep):
        return _count_range(value, key, text)
    if isinstance(value, Glob):
        assert override.config_loader is not None
        if not (known := override.config_loader.get_group_options(override.key_or_group)):
            raise Refused(Problem(key, f"got {text}, but {key} is not a group of files that it could match"))
        if not (matches := value.filter(known)):
            word = " ".join(value.include).strip("*")
            raise Refused(Problem(key, f"{text} matches none of the choices; {suggest(word, known)}"))
        return len(matches)
    if not override.is_discrete_sweep():
        return 1
    if not (number := len(list(override.sweep_string_iterator()))):
        raise Refused(Problem(key, f"{text} gives no value"))
    return number


def _count_range(value: RangeSweep, key: str, text: str) -> int:
    bounds = (value.start, value.stop, value.step)
    if any(bound is None or not math.isfinite(bound) for bound in bounds):
        raise Refused(Problem(key, f"got {text}, expected finite numbers", quoted(f"{key}=range(3)")))
    start, stop, step = (Fraction(bound or 0) for bound in bounds)
    if step == 0:
        remedy = f"{key}=range({value.start},{value.stop})"
        raise Refused(Problem(key, f"got {text}, expected a step other than 0", quoted(remedy)))
    if (number := math.ceil((stop - start) / step)) > 0:
        return number
    what = f"{text} gives no value: range(START,STOP,STEP) ends before STOP"
    remedy = quoted(f"{key}=range({value.start},{value.stop},{-value.step})") if start != stop else ""
    raise Refused(Problem(key, what, remedy))
