"""Curves as a line of text."""

import math

from hypothesis import given
from hypothesis import strategies as st

from experiments.ranking.sparklines import BARS, sparkline, sparklines
from tests.ranking.test_tables import comparison


@given(st.lists(st.floats(width=32), max_size=300), st.integers(1, 40))
def test_a_sparkline_has_a_block_a_value(curve: list[float], width: int) -> None:
    finite = [value for value in curve if math.isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    line = sparkline(curve, low, high, width)
    assert len(line) == min(len(curve), width)
    assert set(line) <= {*BARS, " "}
    if len(curve) <= width and high > low:
        assert line[curve.index(high)] == BARS[-1]
        assert line[curve.index(low)] == BARS[0]


def test_sparklines_have_one_scale() -> None:
    assert sparkline([0.0, 1.0], 0, 2) == "▁▄" or sparkline([0.0, 1.0], 0, 2) == "▁▅"
    assert sparkline([5.0, 5.0], 5, 5) == sparkline([math.nan, 1.0], 1, 1)[1] * 2
    assert sparklines(comparison(curves=False)) == {}
    assert {len(line) for line in sparklines(comparison()).values()} == {3}
