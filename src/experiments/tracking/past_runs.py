"""Runs that were recorded here before: which of them count, and which one is kept or goes on."""

from collections.abc import Sequence
from pathlib import Path

from experiments.tracking.lookup import CHECKPOINTS, DELETED, Answer, PastRun
from experiments.tracking.summary import Summary


def choose(here: Sequence[Summary], answer: Answer, output: Path) -> PastRun | None:
    """The run to keep, or to go on with: one that a retry of a sweep left, one that finished, one that was interrupted.

    Args:
        here: Runs with a journal here, the latest first.
        answer: What the store said.
        output: Folder of the run's output.
    """
    here = [run for run in here if not is_gone(run, answer)]
    left = [run for run in here if run.status != "FINISHED" and _can_go_on(run)]
    if own := [run for run in left if run.output.absolute() == output.absolute()]:
        return as_past_run(own[0])
    finished = [run for run in (*answer.runs, *map(as_past_run, here)) if run.status == "FINISHED"]
    finished = [run for run in finished if run.objective is not None]
    return finished[0] if finished else as_past_run(left[0]) if left else None


def is_gone(run: Summary, answer: Answer) -> bool:
    """Whether a run with a journal here does not count: it was deleted in the store, or the store is another one now.

    An interrupted run that the store lacks counts: all of it is delivered when it goes on.
    """
    state = run.delivered
    if state.gone or answer.away or not state.run_id:
        return state.gone
    stored = {each.run_id: each.status for each in answer.runs}
    lacking = DELETED if run.status == "FINISHED" and state.complete else ""
    return stored.get(state.run_id, lacking) == DELETED


def _can_go_on(run: Summary) -> bool:
    """Whether an interrupted run has a checkpoint, or was not measured yet."""
    if not run.opened.get("dataset"):  # its process died before it had described itself
        return False
    measured = any(not name.startswith("system/") for name, _ in run.steps)
    return not measured or any(run.folder.glob(f"{CHECKPOINTS}/*.npz"))


def as_past_run(run: Summary) -> PastRun:
    """A run with a journal here."""
    return PastRun(
        run.delivered.run_id,
        run.status,
        run.objective,
        run.seconds,
        run.tags,
        str(run.opened.get("parameters", {}).get("runtime.threads", "")),
        str(run.folder),
        run.uuid,
    )
