"""The trials of a search, and their history in the report."""

from experiments.config.objective import Objective
from experiments.ranking.comparison import Comparison, compare
from experiments.ranking.frame import Row, frame, row
from experiments.ranking.report import page
from experiments.ranking.report.history import history
from experiments.ranking.tables import notes
from experiments.ranking.trials import TRIAL
from tests.ranking.test_report import Page


def run(trial: str, status: str, value: float, epochs: int, **keys: str) -> Row:
    objective = value if status == "FINISHED" else None
    curves = {"val_accuracy": [value] * epochs}
    made = row(f"id {trial} {keys}", f"run {trial}", status, {"batch_size": trial, **keys}, objective, curves=curves)
    return {**made, TRIAL: trial}


def search(*runs: Row, lower: bool = False) -> Comparison:
    return compare(frame(runs), "a search", Objective("val_accuracy", lower, "val_accuracy"))


RUNS = (
    run("1", "FINISHED", 0.7, 4),
    run("0", "FINISHED", 0.4, 2, seed="0"),
    run("0", "FINISHED", 0.6, 2, seed="1"),
    run("3", "FAILED", 0.9, 2),
    run("2", "PRUNED", 0.4, 1),
    run("", "FINISHED", 0.6, 4),
    run("4", "FINISHED", 0.8, 4, seed="0"),
    run("4", "FINISHED", 0.6, 4, seed="1"),
)


def test_trials_are_in_their_order_with_their_epochs_and_the_best_so_far() -> None:
    found = [(each.number, each.status, each.value, each.spent, each.best) for each in search(*RUNS).trials]
    assert found == [
        (None, "FINISHED", 0.6, 0, None),
        (0, "FINISHED", 0.5, 4, 0.5),
        (1, "FINISHED", 0.7, 8, 0.5),
        (2, "PRUNED", None, 9, 0.5),
        (3, "FAILED", None, 11, 0.5),
        (4, "FINISHED", 0.7, 19, 0.7),
    ], "the best has the most seeds"
    assert [each.best for each in search(*RUNS, lower=True).trials] == [None, *[0.5] * 5]


def test_a_trial_that_failed_with_its_last_seed_is_not_the_one_with_the_most_seeds() -> None:
    failed = [
        run("0", status, 0.9, 2, seed=str(seed)) for seed, status in enumerate(["FINISHED", "FINISHED", "FAILED"])
    ]
    assert [each.best for each in search(*failed, run("1", "FINISHED", 0.7, 2)).trials] == [None, 0.7]
    infeasible = search(run("0", "INFEASIBLE", 0.7, 2), *failed)
    assert [each.best for each in infeasible.trials] == [None]
    assert history(search(*failed, run("1", "FAILED", 0.7, 2)), 560, 220) is None


def test_runs_of_no_search_have_no_trials() -> None:
    assert search(*({**each, TRIAL: ""} for each in RUNS)).trials == []
    assert "History of the search" not in page(search(*({**each, TRIAL: ""} for each in RUNS)), {})


def test_the_report_shows_the_history() -> None:
    made = search(*RUNS)
    drawn = history(made, 560, 220)
    assert drawn
    assert [len(points) for points in (drawn.finished, drawn.stopped, drawn.others)] == [4, 1, 1]
    assert drawn.best.startswith("M117.9 ")
    assert drawn.best.endswith("H560")
    shown = Page(page(made, {}))
    assert "history" in shown.sections
    assert "5 trials: 3 finished, 1 stopped early, 1 failed, 1 known before; 19 epochs." in shown.text
    assert "trial 2: PRUNED after epoch 1" in shown.text
    assert "stopped early, after epoch 1" in shown.text
    assert shown.count("circle", **{"class": "dot k0", "data-c": "0"}) >= 1, "the colour is the rank, here too"


def test_several_objectives_are_marked_in_the_report() -> None:
    runs = [
        row(
            f"{place}",
            "",
            "FINISHED",
            {"batch_size": f"{place}"},
            accuracy,
            metrics={"final_val_accuracy": accuracy, "parameters": cost},
            goals="val_accuracy max, parameters min",
        )
        for place, (accuracy, cost) in enumerate([(0.9, 5000.0), (0.8, 1000.0), (0.7, 2000.0)])
    ]
    shown = Page(page(compare(frame(runs), "", Objective("val_accuracy", False, "")), {}))
    assert shown.words.count("front") == 2
    assert "0.900 5,000" in shown.text


def test_notes_say_that_the_best_was_selected() -> None:
    said = notes(search(run("0", "FINISHED", 0.5, 4), run("1", "FINISHED", 0.7, 4)))
    assert said[0].endswith("hydra.sweeper.seeds=[0,1,2] runs the better configs with several")
    assert said[1] == "the best of 2 trials was selected by val_accuracy: on new data it does worse"
