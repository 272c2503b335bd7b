"""Compared runs as text: at any width, for people and for programs."""

import csv
import io
import json
import math
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from experiments.config.objective import Objective
from experiments.ranking.comparison import Comparison, by_run, compare
from experiments.ranking.filters import sort_configs
from experiments.ranking.formats import as_csv, as_json, as_markdown
from experiments.ranking.frame import frame, row
from experiments.ranking.tables import (
    columns,
    notes,
    short_names,
    show,
)

ACCURACY = Objective("val_accuracy", False, "")
LOSS = Objective("val_loss", True, "")
TEST_ACCURACY = Objective("test_accuracy", False, "")

LAYERS = '[{"Dense":{"units":512,"activation":"relu"}},{"Dense":{"units":10,"activation":"softmax"}}]'


def comparison(seeds: int = 3, curves: bool = True, layers: str = "[512]") -> Comparison:
    """Two optimizers and two sizes over some seeds, and a run that failed."""
    runs = []
    for place, (name, size) in enumerate((n, s) for n in ("rmsprop", "adam") for s in ("[16]", layers)):
        for seed in range(seeds):
            reached = 0.9 + 0.02 * place + 0.003 * ((seed * 7 + place * 5) % 4)
            runs.append(
                row(
                    f"{place}{seed}" + 30 * "a",
                    f"optimizer={name}",
                    "FINISHED",
                    {"optimizer.name": name, "model.layer_sizes": size, "seed": str(seed)},
                    reached,
                    2.5 + seed,
                    {"val_accuracy": reached, "val_loss": 1 - reached, "objective": reached},
                    {"val_accuracy": [0.3, 0.6, reached]} if curves else {},
                )
            )
    lost = {"optimizer.name": "sgd", "model.layer_sizes": "[16]", "seed": "0"}
    runs.append(row("f" * 32, "optimizer=sgd", "FAILED", lost, None, 1.0, failure="the loss became nan", log="run.log"))
    return compare(frame(runs), "sweep", ACCURACY)


def shown(
    compared: Comparison, width: int, terminal: bool = True, sort: str = "", encoding: str = "utf-8"
) -> list[str]:
    text = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console = Console(file=text, width=width, force_terminal=terminal, no_color=True, color_system=None)
    show(console, sort_configs(compared, sort) if sort else compared)
    text.seek(0)
    return [line.rstrip() for line in text.read().splitlines()]


def test_a_config_is_a_line_with_all_that_counts() -> None:
    lines = shown(comparison(), 80)
    assert lines[0].split() == [
        "optimizer",
        "layer_sizes",
        "val_accuracy",
        "±",
        "95",
        "%",
        "n",
        "=",
        "curve",
        "seconds",
    ]
    assert lines[1].split() == ["1", "adam", "[512]", "0.9660", "0.0075", "3", "=", "▁▄█", "3.5"]
    assert len(lines) == 6
    assert lines[5].split() == ["sgd", "[16]", "FAILED,", "seed", "0", "1.0"]


def test_with_one_seed_a_run_has_its_id() -> None:
    lines = shown(comparison(seeds=1, curves=False), 80)
    assert lines[0].split() == ["optimizer", "layer_sizes", "val_accuracy", "seconds", "run"]
    assert lines[1].split()[-1] == "30aaaaaa"


@pytest.mark.parametrize("width", [40, 60, 80, 120])
@pytest.mark.parametrize("layers", ["[512]", LAYERS])
@pytest.mark.parametrize("seeds", [1, 3])
def test_no_line_is_wider_than_the_terminal(width: int, layers: str, seeds: int) -> None:
    lines = shown(comparison(seeds, layers=layers), width)
    assert max(map(cell_len, lines)) <= width
    assert sum("0.9" in line for line in lines) >= 4
    assert "…" not in "".join(lines), "results are never cut"
    whole = "".join(line for line in lines for line in line.split() if '"' in line or "]" in line)
    assert whole.count("512") >= 2 or width < 80


def test_in_a_pipe_a_config_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    lines = shown(comparison(layers=LAYERS), 80, terminal=False)
    assert len(lines) == 6
    assert LAYERS in lines[1]


def test_a_terminal_without_unicode_gets_none() -> None:
    lines = shown(comparison(), 100, encoding="ascii")
    assert "+- 95 %" in lines[0]
    assert "curve" not in lines[0]


def test_another_order_keeps_the_ranks() -> None:
    assert [line.split()[0] for line in shown(comparison(), 80, sort="optimizer.name")[1:5]] == ["1", "2", "3", "4"]
    assert [line.split()[0] for line in shown(comparison(), 80, sort="val_accuracy")[1:5]] == ["4", "3", "2", "1"]


@pytest.mark.parametrize(
    ("sort", "header", "cells"),
    [
        ("-val_loss", "val_loss", ["0.09500", "0.07600", "0.05700", "0.03400", ""]),
        ("fit_seconds", "fit_seconds", ["10.0000", "20.0000", "", "", "1.0000"]),
        ("epochs", "epochs", ["3", "3", "3", "3", ""]),
    ],
)
@pytest.mark.parametrize("width", [40, 120])
def test_what_a_table_is_sorted_by_is_a_column(sort: str, header: str, cells: list[str], width: int) -> None:
    compared = comparison()
    runs = compared.runs.sort_index().assign(**{"params.epochs": "3", "metrics.fit_seconds": math.nan})
    runs.loc[runs["rank"] <= 2, "metrics.fit_seconds"] = 10.0 * runs["rank"]
    runs.loc[len(runs)] = {**compared.unfinished.iloc[0], "metrics.fit_seconds": 1.0}
    group = sort_configs(compare(runs, "", ACCURACY), sort)
    [found] = [column.cells for column in columns(group, {}) if column.header == header]
    assert found == cells
    lines = shown(group, width)
    assert all(any(cell in line for line in lines) for cell in cells)
    assert [column.header for column in columns(sort_configs(compared, "-seconds"), {})].count("seconds") == 1
    assert "seconds" in "".join(shown(compared, 40, sort="-seconds"))
    assert shown(compared, 40, sort="optimizer.name")[0] == shown(compared, 40, sort="val_accuracy")[0]
    finished = replace(compared, unfinished=compared.unfinished[:0])
    assert shown(finished, 80, sort="seed") == shown(finished, 80), "a config has several"


def test_numbers_of_a_column_have_the_same_decimals_also_in_the_tables_of_a_sweep() -> None:
    runs = [
        row(name, "", "FINISHED", {"a": name[0], "seed": name[1]}, value)
        for name, value in {"x0": 0.12, "x1": 0.03, "y0": 0.07, "y1": 0.08}.items()
    ]
    compared = compare(frame(runs), "", LOSS)
    for comparison in (compared, by_run(compared)):
        cells = [column.cells for column in columns(comparison, {}) if column.header in ("val_loss", "± 95 %")]
        assert {len(cell.partition(".")[2]) for column in cells for cell in column} == {4}


def test_notes_say_what_the_ranking_is_worth() -> None:
    [marks] = notes(comparison())
    assert marks.startswith("= not significantly different from the best: Tukey-Kramer test (Tukey 1949, Kramer 1956)")
    assert re.search(r"; error rate 5 % for all configs together; a difference below 0\.013 would not have", marks)
    best = comparison().configs.loc[[1, 1]]
    assert notes(replace(comparison(), configs=best))[1:] == ["no config differs significantly from the best"]
    [noise] = notes(comparison(seeds=1))
    assert noise == "one seed each: differences may be noise; a sweep over seed=0,1,2,3,4 is tested for that"
    alone = compare(comparison().runs.query("rank == 1"), "", ACCURACY)
    assert notes(alone) == ["intervals: 95 % of the mean, by Student's t"]
    assert shown(alone, 80)[0].split() == ["val_accuracy", "±", "95", "%", "n", "curve", "seconds"]
    alike = [row(name, "", "FINISHED", {"seed": "0"}, 0.5) for name in "abc"]
    left_out = "runs with the same config and seed as a later one, which are left out: 2"
    assert notes(compare(frame(alike), "", ACCURACY)) == [left_out]
    by_test = compare(frame([row("", "", "FINISHED", {}, 0.5)]), "", TEST_ACCURACY)
    assert notes(by_test)[0].startswith("ranked by test_accuracy, as no run held out a validation set")
    asked = replace(by_test, measured_as="test_accuracy, higher is better, on digits 1ea0 validation_size=0.2")
    assert notes(asked)[0].startswith("ranked by test_accuracy, as objective= says: the best scores lower")


@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_no_note_invites_to_add_seeds_until_a_difference_is_significant(seeds: int) -> None:
    assert "more seeds" not in " ".join(notes(comparison(seeds)))


def single_seeds(**counts: int) -> Comparison:
    """Configs with so many seeds each, the best first."""
    runs = [
        row("", "", "FINISHED", {"model": name, "seed": str(seed)}, 0.9 - 0.1 * place + 0.001 * seed)
        for place, (name, count) in enumerate(counts.items())
        for seed in range(count)
    ]
    return compare(frame(runs), "", ACCURACY)


def marks_and_notes(compared: Comparison) -> tuple[list[str], list[str]]:
    found = {column.header: column.cells for column in columns(compared, {})}
    return list(found["="]), notes(compared)


def test_a_config_with_one_seed_is_marked_as_not_tested() -> None:
    marks, said = marks_and_notes(single_seeds(a=3, b=3, c=1))
    assert marks == ["=", "", "?"]
    assert said[1:] == ["? one seed only, not tested"]


def test_a_best_config_with_one_seed_is_said_to_be_no_reference() -> None:
    marks, said = marks_and_notes(single_seeds(a=1, b=3, c=3))
    assert marks == ["?", "=", ""]
    assert said[1:] == [
        "? one seed only, not tested",
        "the best by its mean has one seed only; the others were tested against rank 2, the best with several seeds",
    ]


def test_where_only_one_config_has_several_seeds_nothing_is_tested() -> None:
    marks, said = marks_and_notes(single_seeds(a=3, b=1))
    assert marks == ["=", "?"]
    assert said == ["intervals: 95 % of the mean, by Student's t", "? one seed only, not tested"]


def test_names_are_as_short_as_they_can_be() -> None:
    assert short_names(["optimizer.name", "optimizer.learning_rate", "model.layer_sizes", "seed"]) == {
        "optimizer.name": "optimizer",
        "optimizer.learning_rate": "learning_rate",
        "model.layer_sizes": "layer_sizes",
        "seed": "seed",
    }
    assert short_names(["a.rate", "b.rate"]) == {"a.rate": "a.rate", "b.rate": "b.rate"}
    assert short_names(["loss.name", "loss"]) == {"loss.name": "loss.name", "loss": "loss"}


@given(st.lists(st.from_regex(r"\A[a-c](\.[a-c]|\.name){0,3}\Z", fullmatch=True), unique=True, max_size=8))
def test_short_names_tell_keys_apart(keys: list[str]) -> None:
    names = short_names(keys)
    assert len(set(names.values())) == len(keys)
    assert all(f".{key}.".find(f".{name}") >= 0 for key, name in names.items())


def test_csv_has_a_line_a_run() -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv([comparison()]))))
    assert len(rows) == 13
    measured = ["objective", "seconds", "val_accuracy", "val_loss"]
    assert list(rows[0]) == ["optimizer.name", "model.layer_sizes", "seed", *measured, "run_id", "name", "status"]
    assert float(rows[0]["val_accuracy"]) == float(rows[0]["objective"])
    assert (rows[12]["status"], rows[12]["objective"]) == ("FAILED", "")


def test_json_has_everything() -> None:
    compared = comparison()
    text = as_json([compared])
    told = json.loads(text)
    assert text.endswith("}\n")
    assert (told["ranked_by"], told["parameters"]) == ("val_accuracy", ["optimizer.name", "model.layer_sizes", "seed"])
    best = told["standings"][0]
    assert (best["rank"], best["n"], best["indistinguishable_from_best"]) == (1, 3, True)
    assert best["interval"][0] < best["mean"] < best["interval"][1]
    assert best["runs"][0]["curves"]["val_accuracy"][0] == 0.3
    assert told["unfinished"][0]["failure"] == "the loss became nan"


def test_json_is_json_whatever_the_metrics_are() -> None:
    odd = row(
        "", "", "FINISHED", {}, 0.5, metrics={"loss": math.nan, "accuracy": math.inf}, curves={"loss": [math.inf, 1.0]}
    )
    compared = compare(frame([odd]), "", ACCURACY)
    text = as_json([compared])
    [run] = json.loads(text, parse_constant=pytest.fail)["standings"][0]["runs"]
    assert (run["metrics"], run["curves"]) == ({"accuracy": None}, {"loss": [None, 1.0]})


def test_markdown_is_a_table_and_its_notes() -> None:
    compared = comparison(layers="a|b")
    lines = as_markdown([compared]).splitlines()
    assert lines[0].startswith("|  | optimizer | layer_sizes | val_accuracy |")
    assert lines[1].startswith("| ---: | --- | --- | ---: |")
    assert len({line.replace("\\|", "").count("|") for line in lines[:7]}) == 1
    assert lines[-1].startswith("= not significantly different from the best: Tukey")


@given(st.floats(min_value=1e-12, max_value=1e12))
def test_a_result_shows_four_digits_at_least(value: float) -> None:
    [_, line] = shown(compare(frame([row("", "", "FINISHED", {}, value)]), "", LOSS), 120)
    told = line.split()[1]
    assert float(told) == pytest.approx(value, rel=1e-3, abs=1e-12)
