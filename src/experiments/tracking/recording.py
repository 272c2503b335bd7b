"""What the records of a run and of a sweep have in common: a journal, and the process that delivers it."""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.config import Problem, Refused, RunFailed
from experiments.config.problems import assign
from experiments.config.schema import Tracking
from experiments.tracking import index, record
from experiments.tracking.journal import Journal, new_uuid
from experiments.tracking.lookup import Answer
from experiments.tracking.process import END_SECONDS, Reader, WriterProcess, process_name
from experiments.tracking.store import store_name, store_uri
from experiments.tracking.summary import PastRun, close_abandoned, summary

INTERRUPTED_SECONDS = 5.0  # for the delivery of what was interrupted


def new_journal(output: Path, claim: index.Claim, **opened: Any) -> Journal:
    """Begin a journal with its first event.

    Args:
        output: Folder of the output.
        claim: Of the fingerprint.
        opened: What the event says, beside the uuid.
    """
    own, uuid = Journal.create(output), new_uuid()
    index.add_waiting(uuid, own.folder)
    claim.add(own.folder)
    own.append("opened", uuid=uuid, **opened)
    return own


class Recording:
    """The record of a run or a sweep. Without tracking, there is no journal.

    Args:
        tracking: Where.
        what: A run or a sweep, in words.
        resume: Whether runs that were recorded before are looked for.
        delivers: Whether a process delivers it meanwhile.
        dry: Whether only to look: nothing is recorded.

    Attributes:
        recorded: Where it is recorded, in lines for the user; known at the end.
        run_id: MLflow's id of the run; empty as long as it is not known.
        store: The name of the store.
        journal: Of the run; None until it begins.
        known: What the journal said before the run went on; None: it is a new one.
    """

    said_at_the_end = record.RECORDED

    def __init__(
        self, tracking: Tracking, what: str, *, resume: bool, delivers: bool = True, dry: bool = False
    ) -> None:
        self.recorded, self.run_id = list[str](), ""
        self.tracking, self.store = tracking, store_name(store_uri(tracking))
        self.journal: Journal | None = None
        self.known: PastRun | None = None
        self._what, self._resume, self._entered = what, resume, int(time.time() * 1000)
        self._claim: index.Claim | None = None
        self._answer: Answer | None = None
        delivers = delivers and tracking.enabled and not tracking.offline
        self._dry, kind = dry, Reader if dry else WriterProcess
        self._writer = kind(store_uri(tracking)) if delivers else None

    def _here(self, claim: index.Claim, experiments: Sequence[str]) -> list[PastRun]:
        """The runs of a fingerprint whose journals are here, the latest first."""
        found = [summary(folder) for folder in claim.journals()]
        return [each for each in found if each.is_in(self.store, experiments)]

    def _wait(self) -> Answer:
        """The store's answer, which is waited for once.

        Raises:
            Refused: It will not take the run.
        """
        if self._writer is None:
            return Answer(away="it is not asked")
        if self._answer is None:
            self._answer = self._writer.answer()
            if why := self._answer.refused:
                what = f"{self.store} cannot be used ({why}); to record here"
                raise Refused(Problem("tracking.uri", what, assign("tracking", "offline")))
            if why := self._answer.away:
                local = "; only runs recorded here are looked for" if self._resume else ""
                print(f"the store takes nothing now ({why}): the {self._what} is recorded here, and sent later{local}")
        return self._answer

    def _begin(self, output: Path, claim: index.Claim, **opened: Any) -> Journal:
        """Begin the journal, and have it delivered."""
        own = self.journal = new_journal(output, claim, started=self._entered, store=self.store, **opened)
        self._deliver(own.folder)
        return own

    def _go_on(self, folder: Path, status: str, reason: str) -> None:
        """Go on with a journal.

        Args:
            folder: Of the journal.
            status: How its process ended, if it did not say so itself: FAILED or KILLED.
            reason: Why, in words.
        """
        close_abandoned(folder, status, reason)
        known = self.known = summary(folder)
        self.journal = Journal(folder)
        assert self._claim
        self._claim.add(folder)
        process = process_name(os.getpid())
        self.journal.append(
            "resumed", started=self._entered, earlier=known.seconds, process=process, number=known.resumed + 1
        )
        index.add_waiting(known.uuid, folder)  # after it: a process that has just delivered the rest removes it there
        self._deliver(folder)

    def _deliver(self, folder: Path) -> None:
        if self._writer:
            self._writer.deliver(folder)

    def _end(self, status: str, trace: str = "", failure: str = "", *, quietly: bool = False) -> None:
        """Close the journal, and wait for its delivery for a while.

        Args:
            status: FINISHED, FAILED or KILLED.
            trace: A traceback.
            failure: Its last line.
            quietly: Leave out what fails here, as there was an error before.
        """
        assert self.journal
        try:
            self.journal.append("closed", status=status, failure=failure, trace=trace)
        except RunFailed:
            if not quietly:
                raise
        finally:
            self.journal.close()
        self._wait_for_delivery(self.journal.folder, INTERRUPTED_SECONDS if status == "KILLED" else END_SECONDS)

    def _wait_for_delivery(self, folder: Path, patience: float) -> None:
        """Wait for it so many seconds; `recorded` says what came of it."""
        why = self._writer.finish(patience=patience) if self._writer else ""
        found = summary(folder).delivered
        if found.complete:
            self.run_id = found.run_id
            self.recorded = [self.said_at_the_end.format(found.run_id)]
        else:
            not_sent = f", but not sent ({why})" if self._writer else ""
            self.recorded = [f"recorded in {folder}{not_sent}"]
            if self._writer or not self.tracking.parent:  # else the sweep says so
                self.recorded.append("send it:  python -m experiments.sync")
        if found.rejected:
            self.recorded.append(record.rejections(found.rejected))

    def close(self) -> None:
        """Let go of what was not begun."""
        if self._writer:
            self._writer.close()
        if self._claim:
            self._claim.release()
