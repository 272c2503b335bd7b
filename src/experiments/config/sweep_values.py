"""The values that an override gives a sweep: how many, counted without listing them."""

import math
import re
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


MOST_SPACED = 10_000  # values
SPACED = re.compile(r"(?P<key>[^=]+)=(?P<how>linspace|logspace)\((?P<arguments>[^()]*)\)")


def spaced(override: str, *, strict: bool = True) -> str:
    """Write ``linspace(START,STOP,COUNT)`` and ``logspace(START,STOP,COUNT)``, ends included, as a list of values.

    Args:
        override: Any.
        strict: Whether an override that cannot be written so is refused; else it stays as it is.

    Raises:
        Refused: The arguments are not three numbers.
    """
    if not (found := SPACED.fullmatch(override)):
        return override
    key, how, arguments = found["key"], found["how"], found["arguments"].split(",")
    try:
        start, stop, count = float(arguments[0]), float(arguments[1]), int(arguments[2])
        fits = len(arguments) == 3 and 2 <= count <= MOST_SPACED and math.isfinite(start) and math.isfinite(stop)
        if not fits or (how == "logspace" and min(start, stop) <= 0):
            raise ValueError
        share = [place / (count - 1) for place in range(count)]
        if how == "linspace":
            values = [start + (stop - start) * each for each in share]
        else:
            values = [start * (stop / start) ** each for each in share]
    except (ValueError, IndexError, OverflowError) as error:
        if not strict:
            return override
        above = " above 0" if how == "logspace" else ""
        what = f"got {how}({found['arguments']}), expected two numbers{above} and how many values, at least 2"
        raise Refused(Problem(key, what, quoted(f"{key}={how}(0.001,0.1,3)"))) from error
    return f"{key}={','.join(f'{value:.12g}' for value in values)}"


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
