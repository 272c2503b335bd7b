"""What optuna-dashboard makes of the study that a search leaves, in a real browser on a real server."""

import os
import shutil
import sys
import urllib.parse
from pathlib import Path

import psutil
import pytest

from experiments.sweeps.search.study import FILE
from tests.browser.page import Page, serving, wait_for
from tests.prepared import environment
from tests.sweeps.search.test_study import carry_out, trials_of

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("hydra_here")]
PLACES = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
DASHBOARD = shutil.which("optuna-dashboard", path=PLACES)


def test_optuna_dashboard_opens_the_study(page: Page, tmp_path: Path) -> None:
    if not DASHBOARD:
        why = "there is no optuna-dashboard"
        (pytest.fail if os.environ.get("EXPERIMENTS_REQUIRE_BROWSER") else pytest.skip)(why)
    carry_out(tmp_path / FILE, "random", "median", 12, interrupted=False)
    trials = trials_of(tmp_path / FILE)
    best = max((trial for trial in trials if trial.state.name == "COMPLETE"), key=lambda trial: trial.value)
    command = [DASHBOARD, f"sqlite:///{tmp_path / FILE}", "--port"]
    with serving(command, env=environment() | {"HOME": str(tmp_path)}) as (url, process):
        wait_for(f"{url}/dashboard")
        page.requests()
        page.open(f"{url}/dashboard")
        page.until("document.body.innerText.includes('search')")
        page.open(f"{url}/dashboard/studies/1")
        page.until(f"document.body.innerText.includes('Best Trial (number={best.number})')")
        page.until("document.querySelector('.ytitle')?.textContent === 'val_accuracy'")  # the objective has its name
        page.open(f"{url}/dashboard/studies/1/trials")
        page.until(f"document.body.innerText.includes('Trial {len(trials) - 1}')")
        page.until("document.body.innerText.includes('Pruned')")
        asked = {urllib.parse.urlsplit(asked).netloc for asked in page.requests() if asked.startswith("http")}
        assert asked == {urllib.parse.urlsplit(url).netloc}, "nothing is asked of another machine"
        server = [psutil.Process(process), *psutil.Process(process).children(recursive=True)]
        listening = {each.laddr.ip for one in server for each in one.net_connections() if each.status == "LISTEN"}
        assert listening == {"127.0.0.1"}, "no other machine reaches it"
