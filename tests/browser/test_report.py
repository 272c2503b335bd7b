"""The HTML report of a comparison in a real browser: offline, on a phone, in the dark, under the mouse."""

from pathlib import Path

import pytest

from experiments.config.objective import Objective
from experiments.ranking.comparison import compare
from experiments.ranking.frame import Row, frame, row
from experiments.ranking.report import page as report
from tests.browser.page import Page

pytestmark = pytest.mark.browser
PHONE, DESK = (390, 844), (1600, 1000)
WIDTH = "document.documentElement.scrollWidth"
BACKGROUND = "getComputedStyle(document.body).backgroundColor"
MARKED = "[...document.querySelectorAll('.on')].map(mark => mark.dataset.c).filter((c, i, all) => all.indexOf(c) === i)"


def _run(optimizer: str, size: str, seed: int, reached: float) -> Row:
    parameters = {"optimizer.name": optimizer, "model.layer_sizes": size, "seed": str(seed), "epochs": "5"}
    name = f"optimizer={optimizer} model.layer_sizes={size} seed={seed}"
    curves = {
        "val_accuracy": [reached * epoch / 5 for epoch in range(1, 6)],
        "loss": [1 / epoch for epoch in range(1, 6)],
    }
    return row(f"{name}", name, "FINISHED", parameters, reached, 3.0, {"val_accuracy": reached}, curves)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The report of 16 runs with results and one without, with two confusion matrices, as a file."""
    grid = [(optimizer, size) for optimizer in ("adam", "rmsprop") for size in ("[512]", "[256,128,64,32]")]
    runs = [_run(*grid[n % 4], seed=n // 4, reached=0.9 + n % 4 / 50 + n / 1000) for n in range(16)]
    failed = row("", "optimizer=sgd " * 20, "FAILED", {}, failure="ValueError: " + "why" * 100)
    matrix = [[90 if row == column else 1 for column in range(10)] for row in range(10)]
    confusion = {run["run_id"]: matrix for run in runs[-2:]}
    file: Path = tmp_path_factory.mktemp("report") / "report.html"
    by_accuracy = Objective("val_accuracy", False, "val_accuracy on digits")
    file.write_text(report(compare(frame([*runs, failed]), "sweep of 16 runs", by_accuracy), confusion))
    return file.as_uri()


@pytest.fixture(autouse=True)
def _shown(page: Page, address: str) -> None:
    page.size(*DESK)
    page.dark(False)
    page.open(address)
    page.requests()
    page.errors()


def test_it_asks_for_nothing_and_says_nothing_to_the_console(page: Page, address: str) -> None:
    page.open(address)
    assert page.ask("document.querySelectorAll('svg').length") > 3
    assert {url for url in page.requests() if url != "about:blank"} == {address}
    assert page.errors() == []


def test_on_a_phone_the_page_is_as_wide_as_the_screen(page: Page, address: str) -> None:
    page.size(*PHONE, mobile=True)
    page.open(address)
    assert page.ask("innerWidth") == PHONE[0]
    assert page.ask(WIDTH) <= PHONE[0]
    page.ask("document.querySelectorAll('details').forEach(part => part.open = true)")
    assert page.ask(WIDTH) <= PHONE[0]


def _brightness(color: str) -> float:
    """Of ``rgb(R, G, B)``, from 0 to 255."""
    return sum(map(int, color.removeprefix("rgb(").rstrip(")").split(","))) / 3


def test_where_the_system_is_dark_it_is_dark(page: Page) -> None:
    light = page.ask(BACKGROUND)
    page.dark(True)
    dark = page.until(f"{BACKGROUND} !== a[0] && {BACKGROUND}", light)
    assert [_brightness(color) > 128 for color in (light, dark)] == [True, False]


def test_a_config_under_the_mouse_is_marked_in_every_chart(page: Page) -> None:
    assert page.ask(MARKED) == []
    for config in ("2", "1"):
        page.hover(f"tr[data-c='{config}']")
        page.until(f"{MARKED}.join() === a[0]", config)
        kinds = page.ask("[...new Set([...document.querySelectorAll('.on')].map(mark => mark.tagName.toLowerCase()))]")
        assert {"tr", "path", "circle"} <= set(kinds)
        assert page.ask("document.getElementById('what').innerText.includes('val_accuracy')")
    page.hover("h1")
    page.until(f"{MARKED}.length === 0")
