"""Which jobs of a resumed sweep need not run, and what is said of them."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode

from experiments.config.fingerprint import config_fingerprint
from experiments.sweeps.composer import Composer
from experiments.sweeps.jobs import identify, prepare
from experiments.sweeps.kept import Kept
from experiments.tracking.provenance import hardware
from experiments.tracking.summary import PastRun

pytestmark = pytest.mark.usefixtures("hydra_here")


def past_run(run_id: str, status: str, tags: dict[str, str]) -> PastRun:
    opened = {"tags": tags, "parameters": {"runtime.threads": "2"}}
    return PastRun(stored_id=run_id, status=status, opened=opened)


def test_what_is_kept_and_from_which_machine() -> None:
    loader = GlobalHydra.instance().config_loader()
    master = loader.load_configuration("config", ["data=digits", "tracking=off"], RunMode.MULTIRUN)
    each = [["data=digits", "tracking=off", f"seed={seed}"] for seed in range(4)]
    jobs = identify(prepare(each, Composer(loader, master)))
    here = hardware()
    recorded = [
        past_run("a", "FINISHED", {"fingerprint": jobs[0].fingerprint, **here}),
        past_run("b", "FINISHED", {"fingerprint": jobs[1].fingerprint, "hardware.processor": "Abacus"}),
        past_run("c", "KILLED", {"fingerprint": jobs[2].fingerprint, "hardware.processor": "Abacus"}),
        past_run("d", "FINISHED", {"fingerprint.config": config_fingerprint(jobs[3].config)}),
    ]
    asked: list[list[str]] = []

    def past_runs(fingerprints: list[str], *, anywhere: bool) -> list[PastRun]:
        asked.append(fingerprints)
        return [run for run in recorded if run.tags.get("fingerprint") in (None, *fingerprints)]

    recorder: Any = SimpleNamespace(past_runs=past_runs, resumes=True)
    kept = Kept(recorder, jobs)
    assert [run and run.run_id for run in map(kept.finished, jobs)] == ["a", "b", None, None]
    assert [kept.is_begun(job) for job in jobs] == [False, False, True, False]
    begin = (
        "resume: 2 kept, 1 interrupted, 1 ran with other code, data, versions or flags: rerun; of those kept, 1 ran "
    )
    processor = f"on another processor (Abacus; here {here['hardware.processor']})"
    assert kept.line(jobs, 2) == kept.line(jobs, None) == begin + processor
    elsewhere = f"with 2 threads (here 8); of those kept, 1 ran {processor} with 2 threads (here 8)"
    assert kept.line(jobs, 8) == begin + elsewhere
    assert len(asked) == 1
    recorded[2] = past_run("c", "PRUNED", {"fingerprint": jobs[2].fingerprint})
    assert Kept(recorder, jobs).why(jobs[2]) == "stopped early by a search"
    later = Kept(recorder, [])
    later.look_up([jobs[1]])
    run = later.finished(jobs[1])
    assert run
    assert run.run_id == "b"
    assert asked[2:] == [[jobs[1].fingerprint]]


def test_a_trial_does_not_go_on_with_the_failed_run_of_an_equal_one() -> None:
    loader = GlobalHydra.instance().config_loader()
    master = loader.load_configuration("config", ["data=digits", "tracking=off"], RunMode.MULTIRUN)
    [job] = identify(prepare([["data=digits", "tracking=off"]], Composer(loader, master)))
    job = replace(job, tags={"trial": "2"})
    for trial, begun in (("1", False), ("2", True)):
        run = past_run("a", "FAILED", {"fingerprint": job.fingerprint, "trial": trial})
        recorder: Any = SimpleNamespace(
            past_runs=lambda _, anywhere, run=run: [run],
            resumes=True,
            is_own=lambda run, tags: tags.items() <= run.tags.items(),
        )
        assert Kept(recorder, [job]).is_begun(job) == begun
