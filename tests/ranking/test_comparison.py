"""Grouping over seeds, ranking, and what may be said of the ranking."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from experiments.config.objective import Objective
from experiments.ranking.comparison import Comparison, Run, by_run, compare, differing

ACCURACY = Objective("val_accuracy", False, "")
LOSS = Objective("val_loss", True, "")


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


def marks(comparison: Comparison) -> Mapping[str, bool | None]:
    return {
        standing.settings["optimizer.name"]: standing.indistinguishable_from_best for standing in comparison.standings
    }


def test_seeds_are_averaged_and_configs_ranked() -> None:
    found = compare(runs(sgd=[0.1, 0.2, 0.3], adam=[0.9, 0.8]), "", ACCURACY)
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
    found = compare(runs(sgd=[0.1], adam=[0.9]), "", LOSS)
    assert [standing.mean for standing in found.standings] == [0.1, 0.9]
    assert [standing.mean for standing in by_run(found).standings] == [0.1, 0.9]


def test_with_one_seed_each_nothing_is_said() -> None:
    found = compare(runs(sgd=[0.1], adam=[0.9]), "", ACCURACY)
    assert found.method == ""
    assert marks(found) == {"adam": None, "sgd": None}
    assert [(item.deviation, item.interval) for item in found.standings] == [(None, None)] * 2


def test_shared_seeds_are_blocks() -> None:
    """An effect of the seed on all configs alike is no difference between them."""
    shared = [0.80, 0.90, 0.70, 0.85]
    found = compare(
        runs(adam=[v + d for v, d in zip(shared, (0.021, 0.02, 0.02, 0.019), strict=True)], sgd=shared),
        "",
        ACCURACY,
    )
    assert marks(found) == {"adam": True, "sgd": False}
    assert found.method.startswith("Tukey-Kramer test (Tukey 1949, Kramer 1956) with seeds as blocks, modified: ")
    assert found.method.endswith(" would not have been seen; intervals: 95 % of the mean, by Student's t")


def test_other_seeds_are_no_blocks() -> None:
    apart = [run(value, optimizer__name="sgd", seed=str(seed)) for seed, value in enumerate((0.1, 0.11, 0.12), start=7)]
    found = compare([*runs(adam=[0.9, 0.91, 0.92]), *apart], "", ACCURACY)
    assert marks(found) == {"adam": True, "sgd": False}
    assert found.method.startswith("Tukey-Kramer test (Tukey 1949, Kramer 1956), modified: ")


@pytest.mark.parametrize("metric", [ACCURACY, LOSS])
def test_a_single_seed_does_not_hide_differences(metric: Objective) -> None:
    """A config with one seed on top once made all others look equal to it."""
    sign = 1 if metric == ACCURACY else -1
    configs = {"a": [0.99], "b": [0.98, 0.981, 0.979], "c": [0.5, 0.51, 0.49]}
    found = compare(runs(**{name: [sign * value for value in row] for name, row in configs.items()}), "", metric)
    assert marks(found) == {"a": None, "b": True, "c": False}


def test_results_that_are_not_finite_are_not_tested() -> None:
    lost = [run(value, optimizer__name="a", seed=str(seed)) for seed, value in enumerate((np.inf, np.nan), start=3)]
    configs = runs(a=[0.9, 0.91, 0.89], b=[0.5, 0.51, 0.49])
    assert compare([*configs, *lost], "", ACCURACY).standings == compare(configs, "", ACCURACY).standings


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
    found = compare(tries, "", ACCURACY)
    assert [[item.run_id for item in standing.runs] for standing in found.standings] == [["3"], ["7"]]
    assert [item.run_id for item in found.unfinished] == ["6"]


def test_runs_without_a_record_or_result_are_not_ranked() -> None:
    lost = [
        Run("1", "", "FAILED", {}),
        Run("2", "", "FAILED", {}),
        run(None, run_id="3", model="b"),
        run(float("nan"), run_id="4", model="c"),
    ]
    found = compare([run(0.5, model="a"), *lost], "", ACCURACY)
    assert len(found.standings) == 1
    assert [item.run_id for item in found.unfinished] == ["1", "2", "3", "4"]
    assert found.parameters == ["model"]


def test_a_failure_before_parameters_were_recorded_counts_with_the_runs_of_its_config() -> None:
    failures = [Run(f"f{seed}", "", "FAILED", {}, fingerprint=seed) for seed in "0123"]
    assert compare(failures, "", ACCURACY).unfinished == failures
    assert compare([*failures, *failures[2:]], "", ACCURACY).unfinished == failures
    later = [Run(seed, "", "FINISHED", {"seed": seed}, 0.5, fingerprint=seed) for seed in "012"]
    found = compare([*failures, *later, failures[2]], "", ACCURACY)
    assert [item.run_id for standing in found.standings for item in standing.runs] == ["0", "1", "2"]
    assert [item.run_id for item in found.unfinished] == ["f3"]


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
    found = compare([run(0.1, a="1"), run(0.2, a="1")], "", ACCURACY)
    assert found.parameters == []
    assert [standing.mean for standing in found.standings] == [0.2]
    assert compare([], "", ACCURACY).standings == []


def test_by_run_each_seed_has_a_rank() -> None:
    each = by_run(compare(runs(adam=[0.1, 0.4], sgd=[0.3, 0.2]), "", ACCURACY))
    assert [tuple(item.settings.values()) for item in each.standings] == [
        ("adam", "1"), ("sgd", "0"), ("sgd", "1"), ("adam", "0")
    ]  # fmt: skip
