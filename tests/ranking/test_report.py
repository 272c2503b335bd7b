import math
import re
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from experiments.config.objective import Objective
from experiments.ranking.comparison import Comparison, compare
from experiments.ranking.frame import Row, frame, row
from experiments.ranking.report import charts, page
from experiments.ranking.report.effect import effects, eta_squared
from experiments.ranking.report.scales import Scale, natural, scale_of

VOID = {"meta", "br", "wbr"}
SECTIONS = ["ranking", "curves", "parallel", "effects", "confusion", "configs", "unfinished"]
EVIL = "</script><script>alert(1)</script>\"'&"
MATRIX = [[9, 1], [0, 10]]


class Page(HTMLParser):
    """Reads a page, and holds it to closing what it opens and to asking for nothing from outside."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open
        assert not re.search(r"https?:|//\w|@import|url\(|<link|<iframe|<object", text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        assert not {"src", "href", "xlink:href", "onclick", "onload"} & dict(attrs).keys()
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    @property
    def sections(self) -> list[str | None]:
        return [attrs["id"] for tag, attrs in self.tags if tag == "section"]

    def count(self, tag: str, **wanted: str) -> int:
        return sum(tag == t and all(attrs.get(key) == value for key, value in wanted.items()) for t, attrs in self.tags)


def run(
    objective: float | None, epochs: int = 3, curves: Sequence[str] = ("val_accuracy", "loss"), **parameters: str
) -> Row:
    name = " ".join(f"{key}={value}" for key, value in parameters.items())
    values = {metric: [(objective or 0.0) * epoch / epochs for epoch in range(1, epochs + 1)] for metric in curves}
    run_id = f"id {name}"
    return row(run_id, name, "FINISHED", {"epochs": str(epochs), **parameters}, objective, curves=values)


def comparison(*runs: Row, lower_is_better: bool = False, **changes: object) -> Comparison:
    objective = Objective("val_accuracy", lower_is_better, "val_accuracy on digits")
    return replace(compare(frame(runs), "a sweep", objective), **changes)  # type: ignore[arg-type]


def with_configs(made: Comparison, **columns: Sequence[object]) -> Comparison:
    return replace(made, configs=made.configs.assign(**columns))


@pytest.fixture
def sweep() -> Comparison:
    """Two optimizers and two sizes, two seeds each, and a run that failed."""
    grid = [("adam", "[8]", 0.95), ("adam", "[4]", 0.94), ("sgd", "[8]", 0.91), ("sgd", "[4]", 0.9)]
    runs = [
        run(best + seed / 1000, optimizer=name, layers=size, seed=str(seed))
        for name, size, best in grid
        for seed in (0, 1)
    ]
    failed = row("", "sgd seed=9", "FAILED", {}, failure="the loss is nan", log="9/run.log")
    made = comparison(*runs, failed, method="A paired test (Student 1908).")
    return with_configs(made, indistinguishable_from_best=[True, True, False, False])


def test_a_sweep_has_every_section(sweep: Comparison) -> None:
    shown = Page(page(sweep, {sweep.runs["run_id"].iloc[0]: MATRIX}))
    assert shown.sections == SECTIONS
    assert "8 finished runs of 4 configs over 2 seeds; 1 without a result" in shown.text
    assert "0.9505 ± 0.0064" in shown.text
    assert shown.text.count("≈ best") == 2  # the other adam, and the explanation
    assert "Student 1908" in shown.text
    assert "95.00 % right" in shown.text
    assert "the loss is nan" in shown.text
    assert "test set" not in shown.text


def test_the_report_marks_configs_with_one_seed(sweep: Comparison) -> None:
    columns = ["params.optimizer", "params.layers", "params.seed", "objective"]
    runs = [
        run(value, optimizer=optimizer, layers=layers, seed=seed)
        for optimizer, layers, seed, value in sweep.runs[columns].itertuples(index=False)
    ]
    made = comparison(*runs, run(0.99, optimizer="sgd", layers="[2]", seed="0"), method=sweep.method)
    shown = Page(page(with_configs(made, indistinguishable_from_best=[None, True, True, False, False]), {}))
    assert "? one seed only, not tested" in shown.text
    assert "the best by its mean has one seed only; the others were tested against rank 2" in shown.text
    assert shown.text.count("≈ best") == 3  # both adam, and the explanation


def test_a_config_can_be_found_in_every_chart(sweep: Comparison) -> None:
    shown = Page(page(sweep, {sweep.runs.query("rank == 3")["run_id"].iloc[0]: MATRIX}))
    marks = [tag for tag, attrs in shown.tags if attrs.get("data-c") == "2"]
    runs, metrics, parameters = 2, 2, 3
    assert marks.count("tr") == 1
    assert marks.count("path") == runs * metrics + 1  # its curves, and its line through the settings
    assert marks.count("circle") == runs * parameters
    assert marks.count("figure") == 1
    row = next(attrs for tag, attrs in shown.tags if tag == "tr" and attrs.get("data-c") == "2")
    assert row["data-what"] == "3.  val_accuracy 0.9105 ± 0.0064 (n = 2)\noptimizer = sgd\nlayers = [8]"


def test_texts_of_the_store_are_escaped() -> None:
    evil = [run(0.9 + n / 100, **{EVIL: EVIL + str(n), "seed": "0"}) for n in range(2)]
    failed = row(EVIL, EVIL, EVIL, {}, failure=EVIL, log=EVIL)
    evil.append({**run(0.8, **{EVIL: EVIL, "seed": "0"}), "name": EVIL, "curves": {EVIL: [1.0, 2.0]}})
    made = comparison(*evil, failed, title=EVIL, ranked_by=EVIL, method=EVIL)
    text = page(made, {})
    assert Page(text).count("script") == 1
    assert "alert(1)</script>" not in text
    assert EVIL in Page(text).text


def test_ranking_by_the_test_set_carries_a_warning(sweep: Comparison) -> None:
    text = Page(page(replace(sweep, ranked_by="test_accuracy"), {})).text
    assert "ranks by the test set, as no validation set was held out" in text


def test_a_single_run() -> None:
    shown = Page(page(comparison(run(0.9, seed="0")), {}))
    assert shown.sections == ["ranking", "curves", "configs"]
    assert "1 finished run of 1 config" in shown.text
    assert "interval" not in shown.text
    assert "Result 0.90" in shown.text


def test_no_finished_run() -> None:
    failed = row("", "sgd", "FAILED", {}, failure="why")
    assert Page(page(comparison(failed), {})).sections == ["unfinished"]
    assert Page(page(comparison(), {})).sections == []


def test_seeds_only_have_an_effect_but_no_parallel_lines() -> None:
    shown = Page(page(comparison(*(run(0.9 + n / 100, seed=str(n)) for n in range(3))), {}))
    assert shown.sections == ["ranking", "curves", "effects", "configs"]
    assert "a value of its own in each config" in shown.text


def test_without_curves_there_is_no_section_for_them() -> None:
    made = comparison(*(run(0.9, curves=(), optimizer=name) for name in ("adam", "sgd")))
    assert "curves" not in Page(page(made, {})).sections
    assert "more than noise" in Page(page(made, {})).text


def test_values_that_are_not_numbers_leave_gaps() -> None:
    runs = [run(value, optimizer=str(value)) for value in (0.9, math.nan, None, math.inf)]
    runs[0]["curves"] = {"val_accuracy": [0.1, math.nan, 0.3, 0.4], "loss": [math.nan]}
    made = comparison(*runs)
    text = page(made, {})
    assert Page(text).sections == ["ranking", "curves", "configs", "unfinished"]
    assert not re.search(r'(?:d|x|y|cx|cy)="[^"]*(?:nan|inf)', text)
    path = charts.panel(made, "val_accuracy", 300, 100).lines[-1][1]
    assert path.startswith("M0 ")
    assert [part[0] for part in re.findall(r"[ML][^ML]+", path)] == ["M", "M", "L"]


def test_one_epoch_is_a_point() -> None:
    panel = charts.panel(comparison(run(0.9, epochs=1)), "loss", 300, 100)
    assert panel.lines[0][1] == "M150 50h0"
    assert [tick.label for tick in panel.x] == ["1"]


def test_curves_start_with_what_is_ranked_by() -> None:
    curves = ("accuracy", "learning_rate", "loss", "val_accuracy", "val_loss", "val_auc")
    made = comparison(run(0.9, curves=curves))
    assert charts.curve_metrics(made) == ["val_accuracy", "val_loss", "loss", "accuracy"]
    made = replace(made, ranked_by="test_accuracy")
    assert charts.curve_metrics(made) == ["accuracy", "val_loss", "loss", "val_accuracy"]


def test_a_hundred_runs_stay_small() -> None:
    curves = ("val_accuracy", "val_loss", "loss", "accuracy")
    runs = [run(1 - 1 / (n + 2), 5, curves, rate=str(10 ** -(n / 20)), size=str(n % 7), seed="0") for n in range(100)]
    text = page(comparison(*runs), {run["run_id"]: MATRIX for run in runs[:3]})
    shown = Page(text)
    assert len(text.encode()) < 400_000
    assert shown.count("tr", **{"data-c": "99"}) == 1
    assert shown.count("div", **{"class": "scroll tall"}) == 1


def test_long_curves_are_thinned_to_their_last_epoch() -> None:
    panel = charts.panel(comparison(run(0.9, epochs=1000)), "loss", 300, 100)
    assert panel.every == 7
    assert len(re.findall("[ML]", panel.lines[0][1])) < 150
    assert "L300 " in panel.lines[0][1]


def test_eta_squared() -> None:
    # Means 2 and 5 about 3.5: 3 * 1.5² + 3 * 1.5² = 13.5, of 2.5² + 1.5² + 0.5² + 0.5² + 1.5² + 2.5² = 17.5.
    assert eta_squared([[1, 2, 3], [4, 5, 6]]) == pytest.approx(13.5 / 17.5)
    assert eta_squared([[1, 1], [1]]) == 0


def test_effects_are_sorted_by_their_share(sweep: Comparison) -> None:
    found = effects(sweep, Scale(0, 1, 0, 100))
    assert [effect.name for effect in found] == ["optimizer", "layers", "seed"]
    shares = [effect.share for effect in found]
    assert shares == pytest.approx([1600 / 1700, 100 / 1700, 1 / 1701]), "a config is the mean of its seeds"
    assert [effect.chance for effect in found] == pytest.approx([1 / 3, 1 / 3, 1 / 7])
    assert [(group.label, group.at) for group in found[0].groups] == [("adam", 94.5), ("sgd", 90.5)]


@pytest.mark.parametrize("values", [range(100, 112), [f"{0.01 + n / 1e6:.6f}" for n in range(12)]])
def test_no_run_is_lost_where_the_ranges_of_a_number_lie_near_each_other(values: Sequence[object]) -> None:
    runs = [run(number / 12, rate=str(value)) for number, value in enumerate(values)]
    (effect,) = effects(comparison(*runs), Scale(0, 1, 0, 100))
    assert sum(len(group.dots) for group in effect.groups) == 12
    assert len({group.label for group in effect.groups}) == 5


def test_many_values_of_a_number_are_grouped_into_ranges() -> None:
    runs = [run(n / 100, rate=str(n)) for n in range(1, 51)]
    (effect,) = effects(comparison(*runs), Scale(0, 1, 0, 100))
    assert [group.label for group in effect.groups] == ["1 to 10", "11 to 20", "21 to 30", "31 to 40", "41 to 50"]
    assert [len(group.dots) for group in effect.groups] == [10] * 5
    assert effect.share is not None


@pytest.mark.parametrize(
    ("values", "log", "labels"),
    [
        (["0.1", "0.01", "0.001"], True, ["0.001", "0.01", "0.1"]),
        (["32", "64", "256"], False, ["32", "64", "256"]),
        (["0", "0.0001", "0.01"], False, ["0", "0.0001", "0.01"]),
        (["[128]", "[64]", "[64, 32]"], False, ["[64, 32]", "[64]", "[128]"]),
        (["null", "0.5", "0.1"], False, ["0.1", "0.5", "null"]),
    ],
)
def test_parallel_axes(values: Sequence[str], log: bool, labels: Sequence[str]) -> None:
    made = comparison(*(run(0.9 - n / 10, value=value) for n, value in enumerate(values)))
    (axis, objective), lines = charts.parallel(made, 0, 100, 200)
    assert (axis.name, axis.log) == ("value", log)
    assert [tick.label for tick in axis.ticks] == labels
    assert [tick.at for tick in axis.ticks] == sorted((tick.at for tick in axis.ticks), reverse=True)
    assert objective.name == "val_accuracy"
    assert [config for config, _ in lines] == [2, 1, 0]


def test_better_is_up() -> None:
    for lower_is_better in (False, True):
        order = (0.1, 0.9) if lower_is_better else (0.9, 0.1)
        made = comparison(*(run(value, size=str(value)) for value in order), lower_is_better=lower_is_better)
        _, (worse, best) = charts.parallel(made, 0, 100, 200)
        assert float(best[1].split()[-1]) < float(worse[1].split()[-1])


def test_an_outlier_does_not_squeeze_the_rest() -> None:
    scale = scale_of([0.97, 0.971, 0.972, 0.973, 0.974, 0.1], 0, 100)
    assert scale.low > 0.9
    assert scale(0.1) == 0


def test_an_interval_that_leaves_the_axis_is_cut() -> None:
    runs = [run(value, size=size, seed=str(value)) for size in "abc" for value in (0.5, 0.6)]
    made = with_configs(comparison(*runs), low=[0.49, -9.0, math.nan], high=[0.61, 0.6, math.nan])
    _, (whole, cut, single) = charts.whiskers(made, 0, 100)
    assert whole
    assert cut
    assert single
    assert (whole.cut, cut.cut) == ((False, False), (True, False))
    assert cut.interval
    assert cut.interval[0] == 0
    assert single.interval is None


@pytest.mark.parametrize(
    ("scale", "labels"),
    [
        (Scale(0.963, 0.982, 0, 1), ["0.965", "0.970", "0.975", "0.980"]),
        (Scale(-1, 1, 0, 1), ["-1.0", "-0.5", "0.0", "0.5", "1.0"]),
        (Scale(0.003, 20, 0, 1, log=True), ["0.01", "0.1", "1", "10"]),
        (Scale(1e9, 5e9, 0, 1), ["1e+09", "2e+09", "3e+09", "4e+09", "5e+09"]),
    ],
)
def test_ticks_are_round(scale: Scale, labels: Sequence[str]) -> None:
    assert [tick.label for tick in scale.ticks()] == labels


def test_epochs_are_whole() -> None:
    assert [tick.label for tick in Scale(1, 2, 0, 1).ticks(5, whole=True)] == ["1", "2"]


def test_order_is_that_of_people() -> None:
    assert sorted(["b", "[64]", "10", "[8]", "2", "1e-3"], key=natural) == ["1e-3", "2", "10", "[8]", "[64]", "b"]


def test_mistakes_are_coloured_by_their_share_of_the_row() -> None:
    cells = charts.heat(
        [
            [90, 10],
            [4, 0],
        ]
    )
    assert [[heat for _, heat in row] for row in cells] == [[0.9, 0.32], [1.0, 0.0]]


def test_many_classes_are_told_by_their_mixups() -> None:
    matrix = [[50 if i == j else 7 * (i == 3 and j == 5) for j in range(30)] for i in range(30)]
    best = run(0.9)
    shown = Page(page(comparison(best), {best["run_id"]: matrix}))
    assert "mixed up most is taken for images 3 5 7" in shown.text
    assert shown.count("table", **{"class": "matrix"}) == 0


def test_numbers_that_a_search_chose_are_short_in_tables_and_charts() -> None:
    long = ["0.5418760785748071", "0.0010237862204894195", "0.25"]
    shown = Page(page(comparison(*(run(0.9 - n / 10, rate=rate) for n, rate in enumerate(long))), {}))
    assert shown.text.count("0.5419") >= 3  # at the top, in the ranking, on an axis
    assert shown.words.count(long[0]) == 1  # among the parameters, where it can be copied
