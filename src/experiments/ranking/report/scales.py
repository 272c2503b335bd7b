"""Axes of the report's charts: values to coordinates, in the units of its SVGs, in which y grows downward."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import quantiles

Order = tuple[int, float, list[tuple[int, int, str]]]


@dataclass(frozen=True)
class Tick:
    """A labelled place on an axis."""

    at: float
    label: str


@dataclass(frozen=True)
class Scale:
    """An axis: values from low to high, to coordinates from start to end.

    Attributes:
        log: Whether it is logarithmic.
        beyond: How far outside a value may be put, in lengths of the axis; at 0, what lies outside is put on the end.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False
    beyond: float = 0.0

    def __call__(self, value: float) -> float:
        """Place a finite value, to a tenth of a unit."""
        share = min(max(self._share(value), -self.beyond), 1 + self.beyond)
        return round(self.start + share * (self.end - self.start), 1)

    def _share(self, value: float) -> float:
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low) if value > 0 else -math.inf
        return (value - self.low) / (self.high - self.low)

    def ticks(self, about: int = 4, whole: bool = False) -> list[Tick]:
        """Round values, or whole ones; powers of ten on a logarithmic axis."""
        if self.log:
            powers = range(math.ceil(math.log10(self.low)), math.floor(math.log10(self.high)) + 1)
            return [Tick(self(10.0**power), f"{10.0**power:g}") for power in powers[:: 1 + len(powers) // (about + 3)]]
        rough = (self.high - self.low) / about
        unit = 10.0 ** math.floor(math.log10(rough))
        step = max(next(factor * unit for factor in (1, 2, 5, 10) if factor * unit >= rough * 0.7), float(whole))
        places = max(0, -math.floor(math.log10(step * 1.001)))
        values = [step * n + 0.0 for n in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]
        return [Tick(self(v), f"{v:.{places}f}" if 1e-6 < step < 1e6 else f"{v:g}") for v in values]


def scale_of(values: Iterable[float], start: float, end: float, may_be_log: bool = False) -> Scale:
    """An axis for values, without those far out: beyond the outer fences of Tukey (1977), 3 interquartile ranges off.

    It is logarithmic if it may be, and the values are positive and wide.
    """
    shown: Sequence[float] = [value for value in values if math.isfinite(value)] or [0.0]
    if may_be_log and min(shown) > 0:
        shown = [math.exp(value) for value in _without_outliers([math.log(value) for value in shown])]
        if is_wide(shown):
            margin = (max(shown) / min(shown)) ** 0.05
            return Scale(min(shown) / margin, max(shown) * margin, start, end, log=True)
    else:
        shown = _without_outliers(shown)
    low, high = min(shown), max(shown)
    margin = 0.05 * (high - low) if high > low else abs(low) * 0.05 or 1.0
    return Scale(low - margin, high + margin, start, end)


def _without_outliers(values: Sequence[float]) -> Sequence[float]:
    if len(values) < 5:
        return values
    first, _, third = quantiles(values, n=4, method="inclusive")
    reach = 3 * (third - first)
    return [value for value in values if first - reach <= value <= third + reach] if reach else values


def is_wide(values: Iterable[float]) -> bool:
    """Whether the positive ones of the values span two decades or more."""
    positive = [value for value in values if value > 0]
    return bool(positive) and max(positive) / min(positive) > 99.9


def apart(ticks: Sequence[Tick], least: float = 13.0) -> list[Tick]:
    """Leave out ticks that would be written over others."""
    kept: list[Tick] = []
    for tick in ticks:
        if not kept or abs(tick.at - kept[-1].at) >= least:
            kept.append(tick)
    return kept


def number(text: str) -> float | None:
    """Read a finite number."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def natural(text: str) -> Order:
    """Order as people do: numbers by size; then words, with the numbers in them by size."""
    if (value := number(text)) is not None:
        return 0, value, []
    parts = (part for part in re.split(r"([0-9]{1,15})", text) if part)
    return 1, 0.0, [(0, int(part), "") if part[0] in "0123456789" else (1, 0, part) for part in parts]
