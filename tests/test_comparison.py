"""Grouping over seeds, ranking, and what may be said of the ranking."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from experiments.comparison import Comparison, Run, by_run, compare, differing

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
from false_claims import measure


def run(objective: float | None, status: str = "FINISHED", run_id: str = "", **parameters: str) -> Run:
    named = {key.replace("__", "."): value for key, value in parameters.items()}
    return Run(run_id, "", status, named, objective)


def runs(**configs: Sequence[float]) -> list[Run]:
    """A run for each seed of each config."""
    return [
        run(value, optimizer__name=name, seed=str(seed))
        for name, row in configs.items()
        for seed, value in enumerate(row)
    ]


def levels(comparison: Comparison) -> Mapping[str, bool]:
    return {standing.settings["optimizer.name"]: standing.level for standing in comparison.standings}


def test_seeds_are_averaged_and_configs_ranked() -> None:
    found = compare(runs(sgd=[0.1, 0.2, 0.3], adam=[0.9, 0.8]), "", "val_accuracy")
    best, worst = found.standings
    assert [standing.settings for standing in found.standings] == [
        {"optimizer.name": "adam"},
        {"optimizer.name": "sgd"},
    ]
    assert best.mean == pytest.approx(0.85)
    assert best.deviation == pytest.approx(0.0707, abs=1e-4)
    # By hand: t(0.975, 2) = 4.302653, times 0.1 / sqrt(3).
    assert worst.interval == pytest.approx((0.2 - 0.248414, 0.2 + 0.248414), abs=1e-6)
    assert [item.parameters["seed"] for item in worst.runs] == ["0", "1", "2"]
    assert found.parameters == ["optimizer.name", "seed"]
    assert not found.lower_is_better


def test_a_loss_is_ranked_the_other_way_round() -> None:
    found = compare(runs(sgd=[0.1], adam=[0.9]), "", "val_loss")
    assert [standing.mean for standing in found.standings] == [0.1, 0.9]
    assert [standing.mean for standing in by_run(found).standings] == [0.1, 0.9]


def test_with_one_seed_each_nothing_is_said() -> None:
    found = compare(runs(sgd=[0.1], adam=[0.9]), "", "val_accuracy")
    assert found.method == ""
    assert levels(found) == {"adam": False, "sgd": False}
    assert [(item.deviation, item.interval) for item in found.standings] == [(None, None)] * 2


def test_shared_seeds_are_paired() -> None:
    """What the seed does to all configs alike is no difference between them."""
    shared = [0.80, 0.90, 0.70, 0.85]
    found = compare(
        runs(adam=[v + d for v, d in zip(shared, (0.021, 0.02, 0.02, 0.019), strict=True)], sgd=shared),
        "",
        "val_accuracy",
    )
    assert levels(found) == {"adam": True, "sgd": False}
    assert found.method.startswith("paired t-test on shared seeds (Student 1908) at 5 %; ")


def test_other_seeds_are_compared_by_welch() -> None:
    apart = [run(value, optimizer__name="sgd", seed=str(seed)) for seed, value in enumerate((0.1, 0.11, 0.12), start=7)]
    found = compare([*runs(adam=[0.9, 0.91, 0.92]), *apart], "", "val_accuracy")
    assert levels(found) == {"adam": True, "sgd": False}
    assert found.method.startswith("Welch's t-test (Welch 1947) at 5 %")


def test_the_correction_is_for_all_pairs() -> None:
    shared = [0.80, 0.90, 0.70]
    near = {
        name: [value - 0.01 + error for value, error in zip(shared, (0, 0.002, -0.002), strict=True)]
        for name in "bcdef"
    }
    assert levels(compare(runs(a=shared, b=near["b"]), "", "val_accuracy")) == {"a": True, "b": False}
    found = compare(runs(a=shared, **near), "", "val_accuracy")
    assert set(levels(found).values()) == {True}
    assert "corrected for all 15 pairs of configs (Bonferroni; Dunn 1961)" in found.method


@pytest.mark.parametrize("other", [[0.8, 0.8, 0.8], [0.9, 0.9, 0.9], [0.1]])
def test_what_cannot_be_told(other: list[float]) -> None:
    """Differences without any spread, no difference at all, a single seed."""
    found = compare(runs(a=[0.9, 0.9, 0.9], b=other), "", "val_accuracy")
    assert levels(found) == {"a": True, "b": True}


def test_of_repeats_the_last_that_finished_counts() -> None:
    tries = [
        run(None, "FAILED", "1", model="a", seed="0"),
        run(0.5, "FINISHED", "2", model="a", seed="0"),
        run(0.6, "FINISHED", "3", model="a", seed="0"),
        run(None, "KILLED", "4", model="a", seed="0"),
        run(None, "FAILED", "5", model="b", seed="0"),
        run(None, "KILLED", "6", model="b", seed="0"),
        run(0.4, "FINISHED", "7", model="b", seed="1"),
    ]
    found = compare(tries, "", "val_accuracy")
    assert [[item.run_id for item in standing.runs] for standing in found.standings] == [["3"], ["7"]]
    assert [item.run_id for item in found.unfinished] == ["6"]


def test_runs_without_a_record_or_result_are_not_ranked() -> None:
    lost = [
        Run("1", "", "FAILED", {}),
        Run("2", "", "FAILED", {}),
        run(None, run_id="3", model="b"),
        run(float("nan"), run_id="4", model="c"),
    ]
    found = compare([run(0.5, model="a"), *lost], "", "val_accuracy")
    assert len(found.standings) == 1
    assert [item.run_id for item in found.unfinished] == ["1", "2", "3", "4"]
    assert found.parameters == ["model"]


DIFFERENCES: list[tuple[list[dict[str, str]], list[str]]] = [
    ([{"a": "1", "b": "1"}, {"a": "2", "b": "1"}], ["a"]),
    ([{"a": "1"}, {"a": "1", "b": "1"}], ["b"]),
    ([{"a": "1"}, {}], []),
    ([{"b": "1", "a": "1"}, {"b": "2", "a": "2"}], ["b", "a"]),
    # what the optimizer brings along says nothing more; a learning rate that was tuned does
    ([{"o.name": "adam", "o.beta_1": "0.9"}, {"o.name": "sgd", "o.momentum": "0"}], ["o.name"]),
    ([{"o.name": "a", "o.lr": "1"}, {"o.name": "b", "o.lr": "1"}, {"o.name": "b", "o.lr": "2"}], ["o.name", "o.lr"]),
    ([{"o.name": "a", "o.s.name": "x", "o.s.k": "1"}, {"o.name": "a", "o.s.name": "y"}], ["o.s.name"]),
    ([{"c": "{}", "a": "1"}, {"c.stop.name": "stop", "c.stop.patience": "3", "a": "1"}], ["c.stop.name"]),
    # circumstances
    ([{"a": "1", "runtime.xla": "true"}, {"a": "2", "runtime.xla": "false"}], ["a"]),
    ([{"a": "1", "runtime.xla": "true"}, {"a": "1", "runtime.xla": "false"}], ["runtime.xla"]),
]  # fmt: skip


@pytest.mark.parametrize(("parameters", "keys"), DIFFERENCES)
def test_what_differs(parameters: list[dict[str, str]], keys: list[str]) -> None:
    assert differing([Run("", "", "FINISHED", item, 0.5) for item in parameters]) == keys


def test_nothing_that_differs_is_one_config() -> None:
    found = compare([run(0.1, a="1"), run(0.2, a="1")], "", "val_accuracy")
    assert found.parameters == []
    assert [standing.mean for standing in found.standings] == [0.2]
    assert compare([], "", "val_accuracy").standings == []


def test_by_run_each_seed_has_a_rank() -> None:
    each = by_run(compare(runs(adam=[0.1, 0.4], sgd=[0.3, 0.2]), "", "val_accuracy"))
    assert [tuple(item.settings.values()) for item in each.standings] == [
        ("adam", "1"), ("sgd", "0"), ("sgd", "1"), ("adam", "0")
    ]  # fmt: skip


@pytest.mark.parametrize("shape", [(2, 3), (6, 3), (12, 5)], ids=str)
@pytest.mark.parametrize("shared_seeds", [True, False])
def test_equal_configs_are_rarely_told_apart(shape: tuple[int, int], shared_seeds: bool) -> None:
    """As scripts/false_claims.py, with fewer sweeps: 5 % of 100, and three standard deviations of the draw."""
    found = measure(np.random.default_rng(1), 100, *shape, shared_seeds)
    assert found["false claims"] <= 0.05 + 3 * (0.05 * 0.95 / 100) ** 0.5
