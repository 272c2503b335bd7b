"""What the MLflow UI makes of our records: a sweep of 8 runs, in a real browser on a real server."""

import json
import sys
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from tests.browser.page import PICTURES, Page, serving, wait_for
from tests.prepared import Prepared, environment
from tests.sweeps.processes import parents, query

pytestmark = pytest.mark.browser
SWEPT = ("model.layer_sizes=[8],[64]", "optimizer=rmsprop,adam", "seed=0,1", "data.validation_size=0.2")
LENGTH = ("data=digits", "epochs=10") if PICTURES else ("data=digits", "data.limit=300", "epochs=2")
UI = Path(__file__).resolve().parents[2] / "scripts" / "ui.py"


@dataclass(frozen=True)
class Records:
    """The recorded sweep: MLflow's ids of what it left, and where its pages are.

    Attributes:
        url: The MLflow UI's.
        experiment: Of all runs.
        runs: Those beneath the parent.
        best: The run that was promoted.
        model: The one that it logged.
    """

    url: str
    experiment: str
    parent: str
    runs: list[str]
    best: str
    model: str

    def page(self, path: str) -> str:
        return f"{self.url}/#/{path}"


@pytest.fixture(scope="module")
def folder(page: Page, tmp_path_factory: pytest.TempPathFactory, prepared: Prepared) -> Path:
    """Where a sweep of 8 runs was recorded. It depends on the page, as without one it is not needed."""
    place = tmp_path_factory.mktemp("ui")
    done = prepared("experiments.run", "-m", *SWEPT, *LENGTH, cwd=place, env=environment())
    assert done.returncode == 0, done.stderr
    return place


@pytest.fixture(scope="module")
def records(folder: Path, prepared: Prepared) -> Iterator[Records]:
    """The sweep in the MLflow UI, its best run promoted."""
    with serving([sys.executable, str(UI)], cwd=folder, env=environment()) as (url, _):
        assert prepared("experiments.promote", cwd=folder, env=environment()).returncode == 0
        yield _recorded(folder, url)


def _recorded(folder: Path, url: str) -> Records:
    [(parent, _)] = parents(folder)
    [(best,)] = query(folder, "SELECT run_id FROM model_versions")
    [(experiment,)] = query(folder, f"SELECT experiment_id FROM runs WHERE run_uuid = '{parent}'")
    [(model,)] = query(folder, f"SELECT model_id FROM logged_models WHERE source_run_id = '{best}'")
    runs = query(folder, f"SELECT run_uuid FROM tags WHERE key = 'mlflow.parentRunId' AND value = '{parent}'")
    wait_for(f"{url}/health")
    return Records(url, str(experiment), parent, [run for (run,) in runs], best, model)


ROWS = "new Set([...document.querySelectorAll('.ag-row')].map(row => row.getAttribute('row-id'))).size"
UNFOLD = ".ag-row button[data-component-id*=runnamecellrenderer]"
VISIBILITY = "[data-testid=experiment-view-runs-visibility-column-header]"
# How many runs each chart shows: MLflow draws with plotly, whose traces have the names of the runs.
CURVES = """[...document.querySelectorAll('.js-plotly-plot')].map(plot => new Set(
    [...plot.querySelectorAll('.scatterlayer .trace')].map(trace => trace.__data__[0].trace.name)).size).join()"""
COORDINATES = """[...document.querySelectorAll('.js-plotly-plot')].flatMap(plot => plot.data)
    .filter(trace => trace.type === 'parcoords').map(trace => trace.dimensions.map(axis => axis.values.length))[0]"""
PANEL = "document.querySelector('[data-component-id*=assistant][data-component-id$=close]')"


def show(page: Page, records: Records, path: str) -> None:
    """Open a page, and close the panel that MLflow opens beside it."""
    page.open(records.page(path))
    page.until("document.querySelectorAll('button').length > 3")
    page.ask(f"{PANEL}?.click()")


def test_a_sweep_is_one_row_that_unfolds_into_its_runs(page: Page, records: Records) -> None:
    show(page, records, f"experiments/{records.experiment}/runs")
    page.until(f"{ROWS} === 1")
    page.click(UNFOLD)
    page.until(f"{ROWS} === 9")


def test_the_curves_of_8_runs_lie_in_one_chart(page: Page, records: Records) -> None:
    show(page, records, f"experiments/{records.experiment}/runs?compareRunsMode=CHART")
    page.until(f"{ROWS} >= 1")
    if page.ask(ROWS) == 1:
        page.click(UNFOLD)
    page.until(f"{ROWS} === 9")
    page.click(VISIBILITY)
    page.click("[role=menuitemradio]", 2)  # all, not only the first 10 or 20
    page.type("input[role=searchbox]", "^(val_)?(accuracy|loss)$")
    page.until(f"{CURVES} === '8,8,8,8'")
    page.picture("ui_charts")


def test_8_runs_are_compared_in_parallel_coordinates(page: Page, records: Records) -> None:
    runs, experiments = (urllib.parse.quote(json.dumps(ids)) for ids in (records.runs, [records.experiment]))
    show(page, records, f"compare-runs?runs={runs}&experiments={experiments}")
    assert set(page.until(COORDINATES)) == {8}
    assert all(run in page.ask("document.body.innerText") for run in records.runs)


@pytest.mark.parametrize("figure", ["best/learning_curves", "best/confusion_matrix", "parent/runs"])
def test_figures_are_shown(page: Page, records: Records, folder: Path, figure: str) -> None:
    run, name = figure.split("/")
    file = f"artifacts/figures/{name}.png"
    show(page, records, f"experiments/{records.experiment}/runs/{getattr(records, run)}/{file}")
    with Image.open(folder / "mlruns" / "artifacts" / getattr(records, run) / file) as image:
        drawn = "[...document.images].some(shown => shown.naturalWidth === a[0] && shown.naturalHeight === a[1])"
        page.until(drawn, *image.size)


def test_the_page_of_a_model_has_its_measures_parameters_and_version(page: Page, records: Records) -> None:
    show(page, records, f"experiments/{records.experiment}/models/{records.model}")
    page.until("document.body.innerText.includes('test_accuracy')")
    text = page.until("document.body.innerText.includes('v1') && document.body.innerText")
    assert records.best in text
    assert records.model in text
    page.picture("ui_model")


def test_the_page_of_the_registered_version_has_alias_and_evidence(page: Page, records: Records) -> None:
    show(page, records, "models/digits/versions/1")
    page.until("document.body.innerText.includes('champion')")
    text = page.until("document.querySelector('table') && document.body.innerText")
    assert f"of run {records.best}" in text
    assert "as the best of 8 runs of 4 configs, by val_accuracy" in text
    assert f"run {records.parent}" in text
    page.picture("ui_registry")


def test_nothing_is_asked_of_another_machine(page: Page, records: Records) -> None:
    """No telemetry, no fonts or scripts from elsewhere, on the pages that were shown so far, and on this one."""
    show(page, records, f"experiments/{records.experiment}/runs/{records.best}")
    page.until(f"document.body.innerText.includes('{records.best}')")
    asked = {urllib.parse.urlsplit(url).netloc for url in page.requests() if url.startswith("http")}
    assert asked == {urllib.parse.urlsplit(records.url).netloc}
