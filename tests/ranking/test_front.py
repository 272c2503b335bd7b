"""The Pareto front of configs that have several objectives."""

import optuna
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import create_trial

from experiments.config.objective import Objective
from experiments.ranking.comparison import Comparison, by_run, compare
from experiments.ranking.formats import as_csv
from experiments.ranking.frame import frame, row
from experiments.ranking.tables import columns, notes

GOALS = "val_accuracy max, parameters min"
VALUES = st.lists(st.tuples(st.integers(0, 5), st.integers(1, 5)), min_size=2, max_size=9)


def comparison(values: list[tuple[int, int]], goals: str = GOALS, recorded: bool = True, seeds: int = 1) -> Comparison:
    """Configs with these accuracies and numbers of parameters."""
    runs = []
    for place, (accuracy, parameters) in enumerate(values):
        for seed in range(seeds):
            metrics = {"final_val_accuracy": float(accuracy), "parameters": float(parameters + seed)}
            measured = metrics if recorded or place else {}
            keys = {"batch_size": str(place), "seed": str(seed)}
            runs.append(row(f"{place}-{seed}", "", "FINISHED", keys, float(accuracy), 1.0, measured, goals=goals))
    return compare(frame(runs), "", Objective("val_accuracy", False, ""))


@settings(deadline=None)
@given(VALUES)
def test_the_front_is_the_one_that_optuna_finds(values: list[tuple[int, int]]) -> None:
    study = optuna.create_study(directions=["maximize", "minimize"])
    study.add_trials([create_trial(values=[float(a), float(p)]) for a, p in values])
    wanted = {str(trial.number) for trial in study.best_trials}
    configs = comparison(values).configs
    assert set(configs["params.batch_size"][configs["on_front"]]) == wanted


def test_a_table_shows_the_objectives_and_the_front() -> None:
    shown = {column.header: column.cells for column in columns(comparison([(3, 4000), (2, 50), (1, 60)]), {})}
    assert list(shown["parameters"]) == ["4,000", "50", "60"]
    assert list(shown["front"]) == ["*", "*", ""]
    assert "* on the Pareto front of val_accuracy and parameters" in notes(comparison([(3, 4000), (2, 50)]))[-1]
    assert as_csv([comparison([(3, 4000)])]).splitlines()[0].count("parameters") == 1


def test_a_config_has_the_mean_of_its_seeds_and_a_run_its_own_value() -> None:
    several = comparison([(3, 10), (2, 5)], seeds=3)
    assert several.configs["goals.parameters"].tolist() == [11, 6]
    assert sorted(by_run(several).configs["goals.parameters"]) == [5, 6, 7, 10, 11, 12]


def test_there_is_no_front_where_it_is_not_known() -> None:
    for made in (comparison([(3, 4), (2, 5)], goals=""), comparison([(3, 4), (2, 5)], recorded=False)):
        assert "on_front" not in made.configs
        assert "front" not in [column.header for column in columns(made, {})]
