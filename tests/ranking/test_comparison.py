"""Grouping over seeds, ranking, and what may be said of the ranking."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from experiments.config.objective import Objective
from experiments.ranking.comparison import Comparison, by_run, standings
from experiments.ranking.comparison import compare as compare_frame
from experiments.ranking.frame import Row, differing, frame, row

ACCURACY = Objective("val_accuracy", False, "")
LOSS = Objective("val_loss", True, "")


def compare(rows: Sequence[Row], title: str, objective: Objective) -> Comparison:
    return compare_frame(frame(rows), title, objective)


def run(objective: float | None, status: str = "FINISHED", run_id: str = "", **parameters: str) -> Row:
    named = {key.replace("__", "."): value for key, value in parameters.items()}
    return row(run_id, "", status, named, objective)


def runs(**configs: Sequence[float]) -> list[Row]:
    """A run for each seed of each config."""
    return [
        run(value, optimizer__name=name, seed=str(seed))
        for name, values in configs.items()
        for seed, value in enumerate(values)
    ]


def marks(comparison: Comparison) -> Mapping[str, bool | None]:
    configs = comparison.configs
    return dict(zip(configs["params.optimizer.name"], configs["indistinguishable_from_best"], strict=True))


def means(comparison: Comparison) -> list[float]:
    return comparison.configs["mean"].tolist()


def test_seeds_are_averaged_and_configs_ranked() -> None:
    found = compare(runs(sgd=[0.1, 0.2, 0.3], adam=[0.9, 0.8]), "", ACCURACY)
    best, worst = standings(found)
    assert [best["settings"], worst["settings"]] == [
        {"optimizer.name": "adam"},
        {"optimizer.name": "sgd"},
    ]
    assert best["mean"] == pytest.approx(0.85)
    assert best["deviation"] == pytest.approx(0.0707, abs=1e-4)
    # By hand: t(0.975, 2) = 4.302653, times 0.1 / sqrt(3).
    assert worst["interval"] == pytest.approx((0.2 - 0.248414, 0.2 + 0.248414), abs=1e-6)
    assert [item["parameters"]["seed"] for item in worst["runs"]] == ["0", "1", "2"]
    assert found.parameters == ["optimizer.name", "seed"]
    assert not found.lower_is_better


def test_a_loss_is_ranked_the_other_way_round() -> None:
    found = compare(runs(sgd=[0.1], adam=[0.9]), "", LOSS)
    assert means(found) == [0.1, 0.9]
    assert means(by_run(found)) == [0.1, 0.9]


def test_with_one_seed_each_nothing_is_said() -> None:
    found = compare(runs(sgd=[0.1], adam=[0.9]), "", ACCURACY)
    assert found.method == ""
    assert marks(found) == {"adam": None, "sgd": None}
    assert [(item["deviation"], item["interval"]) for item in standings(found)] == [(None, None)] * 2


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
    assert found.method.endswith(" would not have been detected; intervals: 95 % of the mean, by Student's t")


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
    assert standings(compare([*configs, *lost], "", ACCURACY)) == standings(compare(configs, "", ACCURACY))


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
    assert found.runs[["rank", "run_id"]].to_numpy().tolist() == [[1, "3"], [2, "7"]]
    assert found.unfinished["run_id"].tolist() == ["6"]


def test_runs_without_a_record_or_result_are_not_ranked() -> None:
    lost = [
        row("1", "", "FAILED", {}),
        row("2", "", "FAILED", {}),
        run(None, run_id="3", model="b"),
        run(float("nan"), run_id="4", model="c"),
    ]
    found = compare([run(0.5, model="a"), *lost], "", ACCURACY)
    assert len(found.configs) == 1
    assert found.unfinished["run_id"].tolist() == ["1", "2", "3", "4"]
    assert found.parameters == ["model"]


def test_a_failure_before_parameters_were_recorded_counts_with_the_runs_of_its_config() -> None:
    failures = [row(f"f{seed}", "", "FAILED", {}, fingerprint=seed) for seed in "0123"]
    for repeated in (failures, [*failures, *failures[2:]]):
        assert compare(repeated, "", ACCURACY).unfinished["run_id"].tolist() == ["f0", "f1", "f2", "f3"]
    later = [row(seed, "", "FINISHED", {"seed": seed}, 0.5, fingerprint=seed) for seed in "012"]
    found = compare([*failures, *later, failures[2]], "", ACCURACY)
    assert found.runs["run_id"].tolist() == ["0", "1", "2"]
    assert found.unfinished["run_id"].tolist() == ["f3"]


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
    assert differing(frame(row("", "", "FINISHED", item, 0.5) for item in parameters)) == keys


def test_what_was_chosen_differs_though_it_follows_from_a_name_by_chance() -> None:
    parameters = [{"o.name": name, "o.lr": rate, "o.decay": rate} for name, rate in (("adam", "0.1"), ("sgd", "0.2"))]
    runs = frame(row("", "", "FINISHED", item, 0.5, chosen=["o", "o.lr"]) for item in parameters)
    assert differing(runs) == ["o.name", "o.lr"]


def test_nothing_that_differs_is_one_config() -> None:
    found = compare([run(0.1, a="1"), run(0.2, a="1")], "", ACCURACY)
    assert found.parameters == []
    assert means(found) == [0.2]
    assert standings(compare([], "", ACCURACY)) == []


def test_by_run_each_seed_has_a_rank() -> None:
    each = by_run(compare(runs(adam=[0.1, 0.4], sgd=[0.3, 0.2]), "", ACCURACY))
    assert each.configs[["params.optimizer.name", "params.seed"]].to_numpy().tolist() == [
        ["adam", "1"], ["sgd", "0"], ["sgd", "1"], ["adam", "0"]
    ]  # fmt: skip
