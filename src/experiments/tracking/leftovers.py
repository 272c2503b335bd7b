"""Journals that were not delivered by the process that should have: they are sent later, by any command."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from experiments.config.problems import visible
from experiments.config.schema import Tracking
from experiments.tracking import index, journal, search, sqlite
from experiments.tracking.delivered import Delivered
from experiments.tracking.failures import Unavailable
from experiments.tracking.record import rejections
from experiments.tracking.sqlite import sqlite_file
from experiments.tracking.store import FOLDER, store_name, store_uri
from experiments.tracking.summary import PastRun, summary
from experiments.tracking.writer import Writer

# Events that take a second: pictures are drawn, models are uploaded.
SLOW = frozenset({"report", "model", "results"})
PATIENCE = 30.0


def send(
    runs: Sequence[PastRun], tracking: Tracking, *, again: bool = False, patience: float = PATIENCE
) -> Iterator[tuple[PastRun, str, bool]]:
    """Deliver journals; yield each with what became of it, in words, and whether all of it was sent.

    Args:
        runs: What the journals say.
        tracking: Names the store; else each goes to the one that its run was started with.
        again: Apply all events, whatever the store is said to have.
        patience: How long to wait for another process that delivers one, in seconds.
    """
    writers: dict[str, Writer] = {}
    away: dict[str, str] = {}

    def deliver(run: PastRun, **options: Any) -> Delivered | str:
        """What the store has of a journal now; or why it takes nothing, in words."""
        if not (uri := _target(run, tracking)):
            return _without_target(run)
        if uri not in away:
            try:
                return writers.setdefault(uri, Writer(uri)).deliver(run.folder, **options)
            except Unavailable as error:
                away[uri] = str(error)
        return away[uri]

    for run in filter(_is_sweep, runs):  # so that their runs are found beneath them
        deliver(run, only_opening=True, again=again)
    for run in sorted(runs, key=_is_sweep):
        before = run.delivered_to(target_name(run, tracking))
        state = deliver(run, again=again and not _is_sweep(run), patience=patience)
        if isinstance(state, str):
            yield run, f"not sent: {state}", False
            continue
        rejected = f"; {rejections(state.rejected)}" if state.rejected else ""
        if state.complete:
            is_new = again or not before.complete or before.run_id != state.run_id
            how = "sent as run" if is_new else "was sent before, as run"
            yield run, f"{how} {state.run_id}{rejected}", True
        elif journal.at_work(run.folder):
            yield run, f"under way, sent so far as run {state.run_id}{rejected}", True
        else:
            yield run, f"not sent: {state.trouble or 'another process is sending it'}", False
    for writer in writers.values():
        writer.close()


def _without_target(run: PastRun) -> str:
    """Why it is not known to which store a journal goes."""
    recorded = visible(str(run.opened.get("store")))
    what = "whose password is not recorded" if "***" in recorded else "but the run was not recorded on this machine"
    return f"its store is {recorded}, {what}; name it with tracking.uri="


def _is_sweep(run: PastRun) -> bool:
    return journal.is_sweep(run.opened)


def target_name(run: PastRun, tracking: Tracking) -> str:
    """The name of the store that a journal goes to."""
    uri = _target(run, tracking)
    return store_name(uri) if uri else str(run.opened.get("store", ""))


def is_store_missing(run: PastRun, tracking: Tracking) -> bool:
    """Whether the SQLite file that a journal goes to is missing."""
    file = sqlite_file(_target(run, tracking))
    return file is not None and not file.exists()


def _target(run: PastRun, tracking: Tracking) -> str:
    """The address of the store that a journal goes to; empty if it is not known whole."""
    uri, recorded = store_uri(tracking), str(run.opened.get("store", ""))
    if tracking.uri or recorded == store_name(uri):
        return uri
    own = sqlite.address(FOLDER.absolute() / "mlflow.db")
    if recorded == store_name(own):
        return own
    # A record that was copied here may name any address, which would get our password.
    return recorded if "***" not in recorded and run.folder in index.waiting() else ""


@search.reads_store
def connect(uri: str) -> Any:
    """MLflow's client of a store that exists. What waits for it is delivered before, if that takes no second."""
    name = store_name(uri)
    mine = [run for run in map(summary, index.waiting()) if run.opened.get("store") == name]
    at_work = {run.uuid for run in mine if journal.at_work(run.folder)}
    left = [run for run in mine if not at_work & {run.uuid, run.opened.get("parent")}]  # a sweep sends its own
    quick = [run for run in left if not any(event["event"] in SLOW for event in _events_left(run, name))]
    if len(quick) < len(left):
        count = len(left) - len(quick)
        what = f"{count} record{'s' * (count > 1)} of this store {'wait' if count > 1 else 'waits'} to be sent"
        print(f"{what}: python -m experiments.sync", file=sys.stderr)
    client = search.connect(uri)
    for _ in send(quick, Tracking(enabled=True, uri=uri), patience=0):
        pass
    return client


def _events_left(run: PastRun, store: str) -> Iterator[Mapping[str, Any]]:
    return (event for event, _ in journal.read(run.folder, run.delivered_to(store).bytes))
