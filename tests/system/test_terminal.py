"""What is printed of long numbers."""

import pytest

from experiments.system.terminal import short_numbers


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("optimizer.learning_rate=0.08543040385549877 seed=1", "optimizer.learning_rate=0.08543 seed=1"),
        ("x=1.5998954627868212e-05,y=-0.25000000001", "x=1.6e-05,y=-0.25"),
        ("x=0.12345 y=123456789 z=[0.333333333,2]", "x=0.12345 y=123456789 z=[0.3333,2]"),
        ("v1.123456789.2 run_0.123456789x", "v1.123456789.2 run_0.123456789x"),
    ],
)
def test_long_numbers_are_shown_in_short(text: str, shown: str) -> None:
    assert short_numbers(text) == shown
