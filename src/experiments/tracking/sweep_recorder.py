"""Records a sweep as a parent run, and looks up how its runs ended. Does nothing with ``tracking=off``."""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from experiments.config import Problem, Refused, RunFailed
from experiments.config.schema import Tracking
from experiments.tracking import index, lock, record
from experiments.tracking.delivered import note_delivered
from experiments.tracking.journal import opening, writing
from experiments.tracking.lookup import DELETED, Answer, Question, is_gone
from experiments.tracking.process import END_SECONDS
from experiments.tracking.provenance import origin
from experiments.tracking.recording import INTERRUPTED_SECONDS, Recording, new_journal
from experiments.tracking.store import redact
from experiments.tracking.summary import PastRun, close_abandoned, summary
from experiments.tracking.sweep_state import ELSEWHERE, TOTAL, UNIT

# Overrides that say how a sweep is carried out, not what it is.
HOW = ("resume", "trust", "tracking")


def _name(key: str) -> str:
    """A key as a name that MLflow takes."""
    return key.lstrip("+").translate({ord("@"): ":", ord("="): "/", ord(","): "/"})


class SweepRecorder(Recording):
    """Records a sweep.

    Args:
        tracking: Where.
        resume: Go on with the latest sweep of the same command.
        writes: Whether there is a parent run, which a writer process delivers with all others.
        dry: Whether only to look: nothing is recorded.

    Attributes:
        parent: What its runs name as their parent; empty: they have none.
        resumes: Whether it goes on with an earlier sweep, if there is one.
        output: The folder of its output; None before it begins.
    """

    said_at_the_end = record.BENEATH

    def __init__(self, tracking: Tracking, *, resume: bool = False, writes: bool = True, dry: bool = False) -> None:
        super().__init__(tracking, "sweep", resume=resume, delivers=writes, dry=dry)
        self.parent, self.resumes = "", resume
        self.output: Path | None = None
        self._before: PastRun | None = None
        self._stored = list[PastRun]()  # in the store, beneath the latest equal sweep

    def open(
        self,
        experiments: Sequence[str],
        overrides: Sequence[str],
        swept: Mapping[str, str],
        identity: Sequence[str],
        goes_on_with: Callable[[Sequence[Path]], Path | None],
        tags: Mapping[str, str] | None = None,
        alone: bool = False,
    ) -> None:
        """Ask the store whether it takes the sweep; wait for the answer where it is resumed. Nothing is recorded yet.

        Args:
            experiments: The MLflow experiments of the runs.
            overrides: Of the command.
            swept: The values that are swept, by key.
            identity: What it has in common with an earlier sweep that it may go on with.
            goes_on_with: Chooses from the output folders of such sweeps, the latest first.
            tags: More tags of its run.
            alone: Whether it cannot be resumed while an equal one is under way.

        Raises:
            Refused: The store will not take it, or it cannot go on with any of the sweeps before.
        """
        if not self.tracking.enabled:
            return
        what = sorted(override for override in identity if not override.lstrip("+").startswith(HOW))
        self._identity = hashlib.sha256("\n".join(what).encode()).hexdigest()
        self._experiments, self._overrides = list(experiments), [redact(item) for item in overrides]
        self._swept, self._tags = {key: redact(value) for key, value in swept.items()}, {**(tags or {})}
        claim = self._claim = index.Claim(self._identity)
        is_free = claim.is_free() if self._dry else claim.take(patience=lock.MOMENT * alone)
        if alone and self._resume and not is_free:
            raise Refused(Problem("resume", f"this search is under way, in {claim.holder()}", "resume=false"))
        if is_free and self._resume:  # else an equal sweep is under way, and this one is another
            here = {run.output: run for run in reversed(self._here(claim, self._experiments))}
            self._before = here.get(goes_on_with(list(reversed(here))) or Path())
        if self._writer and not self._resume:
            self._writer.ask(Question())
        elif self._writer:
            own = [self._before.delivered.run_id] if self._before and self._before.delivered.run_id else []
            self._writer.ask(Question(experiments, sweep=self._identity, run_ids=own))
            self._stored = list(self._wait().runs)
            if any(run.run_id in own and run.status == DELETED for run in self._stored):
                self._before = None

    def _of(self, fingerprints: Sequence[str]) -> list[PastRun]:
        """The runs of these fingerprints whose journals are here."""
        claims = map(index.Claim, dict.fromkeys(fingerprints))
        return [run for claim in claims for run in self._here(claim, self._experiments)]

    @property
    def goes_on_in(self) -> Path | None:
        """The output of the sweep before that this one would go on with; None: there is none."""
        return self._before.output if self._before else None

    def is_own(self, run: PastRun, tags: Mapping[str, str]) -> bool:
        """Whether a run is one of this sweep, with these tags."""
        return run.opened.get("parent") == self.parent and tags.items() <= run.tags.items()

    def past_runs(self, fingerprints: Sequence[str], anywhere: bool = False) -> list[PastRun]:
        """The runs of an equal sweep before, and those of these fingerprints that were recorded here.

        Args:
            fingerprints: Of the runs.
            anywhere: Look in the store, too, for runs that were recorded elsewhere; also for a sweep that is not
                resumed.
        """
        if not (self.tracking.enabled and (self._resume or anywhere)):
            return []
        here = self._of(fingerprints)
        ids = [run.delivered.run_id for run in here if run.delivered.run_id]
        answer = Answer(away="it was not asked")
        if self._writer and (ids or anywhere):
            self._writer.ask(Question(self._experiments, fingerprints[0] if anywhere else "", run_ids=ids))
            answer = self._writer.answer()
        kept = [run for run in here if not is_gone(run, answer)]
        if self._writer:
            for run in kept:
                if run.has_ended_well and not run.delivered.complete:
                    self._writer.deliver(run.folder)
        for run in here:
            if run not in kept and not self._dry:  # its workers must not keep it either
                note_delivered(run.folder, self.store, replace(run.delivered, gone=True))
        others = {run.run_id: run for run in (*self._stored, *answer.runs) if "sweep" not in run.tags}
        return kept + [run for run in others.values() if run.run_id not in ids and run.status != DELETED]

    def runs(self, fingerprints: Sequence[str], *, elsewhere: bool, interrupted: bool) -> list[PastRun]:
        """What became of the runs of the sweep, and those before that count; as far as possible they are delivered.

        Args:
            fingerprints: Of the jobs.
            elsewhere: Whether jobs may have run on other machines, whose journals are not here.
            interrupted: Whether the sweep was, and with it the jobs that another package's launcher has killed.
        """
        if not self.tracking.enabled:
            return []
        for run in self._of(fingerprints) if interrupted else ():
            if run.opened["parent"] == self.parent:
                close_abandoned(run.folder, "KILLED", "interrupted")
        if self._writer:
            self._writer.finish("runs", INTERRUPTED_SECONDS if interrupted else END_SECONDS)
        found = self.past_runs(fingerprints)
        if not self._resume:
            found = [run for run in self._of(fingerprints) if run.opened["parent"] == self.parent]
        if elsewhere and self._writer and len({run.tags.get("fingerprint") for run in found}) < len(set(fingerprints)):
            self._writer.ask(Question(self._experiments, sweep=self._identity))
            found += self._writer.answer().runs
        return sorted(found, key=lambda run: not self.is_own(run, {}))  # another sweep may have the same runs

    def begin(self, folder: Path, total: int | None, unit: str, kept: Sequence[PastRun]) -> None:
        """Open the parent run, or go on with the one before.

        Args:
            folder: For the sweep's output.
            total: Number of what is to be done; None: unknown.
            unit: What that counts, in words.
            kept: Runs that finished before, which are not run again.

        Raises:
            Refused: The store will not take it.
            RunFailed: It cannot be recorded.
        """
        if not self.tracking.enabled:
            return
        self._wait()
        with writing():
            if self._before:
                self._go_on(self._before.folder, "KILLED", "")
            else:
                self._open(folder)
        assert self.journal
        self.output = self.journal.folder.parent
        self.parent = str(opening(self.journal.folder)["uuid"])
        others = sum(not self.is_own(run, {}) for run in kept)
        tags = {UNIT: unit, ELSEWHERE: str(others)} | ({} if total is None else {TOTAL: str(total)})
        self.journal.append("tags", tags=tags)

    def _open(self, folder: Path) -> None:
        assert self._claim
        self._begin(
            folder,
            self._claim,
            experiment=self._experiments[0],
            name=redact(self.tracking.run_name or f"sweep {record.run_name(self._overrides)}"),
            parent=None,
            tags=origin(self.tracking, self._overrides, "python -m experiments.run -m")
            | {"sweep": self._identity, **self._tags},
            parameters={_name(key): value[:6000] for key, value in self._swept.items()},
            dataset=None,
        )

    def settle(self, process: int, opened: Mapping[str, Any], output: Path, status: str, reason: str) -> PastRun | None:
        """See to it that the run of a worker process that is gone is recorded, and closed, as far as that can be.

        Args:
            process: The worker's; 0: unknown, as it ran on another machine that is gone.
            opened: What its first event says, if the worker died before it came to that: name, experiment, parameters,
                tags.
            output: The folder of its output.
            status: FAILED or KILLED.
            reason: Why, in words.
        """
        if not self.tracking.enabled:
            return None
        claim = index.Claim(opened["tags"]["fingerprint"])
        try:
            own = (folder for folder in claim.journals() if opening(folder).get("parent") == self.parent)
            folder = claim.journal_of(process) if process else next(own, None)
            if folder is None or not opening(folder):
                now, parent = int(time.time() * 1000), self.parent or None
                known = {**opened, "started": now, "parent": parent, "dataset": None}
                made = new_journal(output, claim, store=self.store, **known)
                made.close()
                folder = made.folder
            close_abandoned(folder, status, redact(reason))
            return summary(folder)
        except (OSError, RunFailed):  # the disk is full, for one; the other runs go on
            return None

    def end(self, status: str, rows: Sequence[Mapping[str, Any]], files: Mapping[str, bytes | str]) -> list[str]:
        """Record the ranked results, and end the parent run; return lines that say where it is recorded.

        Args:
            status: FINISHED, FAILED or KILLED.
            rows: See `sweep_results.write`; each with its ``uuid``, or an empty text.
            files: More artifacts, by name.
        """
        if self.journal:
            for name, content in files.items():
                self.journal.add_file(name, content)
            self.journal.append("results", rows=list(rows), experiments=self._experiments)
            self._end(status)
        return self.recorded
