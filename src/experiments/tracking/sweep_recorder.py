"""Records a sweep as a parent run, and knows what became of its runs. Does nothing with ``tracking=off``."""

import hashlib
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from experiments.config import Problem, Refused, RunFailed
from experiments.config.problems import assign
from experiments.config.schema import Tracking
from experiments.tracking import index, journal, record
from experiments.tracking.journal import Journal, Summary
from experiments.tracking.lookup import DELETED, Answer, PastRun, Question
from experiments.tracking.process import END_SECONDS, WriterProcess, process_name
from experiments.tracking.provenance import origin
from experiments.tracking.recorder import PATIENCE, as_past_run, is_gone
from experiments.tracking.store import redact, store_name, store_uri

# Overrides that say how a sweep is carried out, not what it is.
HOW = ("resume", "trust", "tracking")


class SweepRecorder:
    """Records a sweep.

    Args:
        tracking: Where.
        writes: Whether there is a parent run, which a writer process delivers with all others.

    Attributes:
        run_id: MLflow's id of the parent run; empty as long as it is not known.
        parent: What its runs name as their parent; empty: they have none.
    """

    def __init__(self, tracking: Tracking, *, writes: bool = True) -> None:
        self.run_id = self.parent = ""
        self._tracking, self._store = tracking, store_name(store_uri(tracking))
        self._journal: Journal | None = None
        self._claim: index.Claim | None = None
        self._before: Summary | None = None
        self._stored = list[PastRun]()  # in the store, beneath the latest equal sweep
        self._resume = self._asked = False
        writes = writes and tracking.enabled and not tracking.offline
        self._writer = WriterProcess(store_uri(tracking)) if writes else None

    def open(
        self, experiments: Sequence[str], overrides: Sequence[str], swept: Mapping[str, str], resume: bool
    ) -> None:
        """Ask the store whether it takes the sweep; wait for the answer where it is resumed. Nothing is recorded yet.

        Args:
            experiments: The MLflow experiments of the runs.
            overrides: Of the command.
            swept: The values that are swept, by key.
            resume: Go on with the latest sweep of the same command.

        Raises:
            Refused: The store will not take it.
        """
        if not self._tracking.enabled:
            return
        self._resume = resume
        what = sorted(override for override in overrides if not override.lstrip("+").startswith(HOW))
        self._identity = hashlib.sha256("\n".join(what).encode()).hexdigest()
        self._experiments, self._overrides = list(experiments), [redact(item) for item in overrides]
        self._swept = {key: redact(value) for key, value in swept.items()}
        claim = self._claim = index.Claim(self._identity)
        if claim.take(patience=0) and resume:  # else an equal sweep is under way, and this one is another
            self._before = next(iter(self._here(claim)), None)
        if self._writer:
            own = [self._before.delivered.run_id] if self._before and self._before.delivered.run_id else []
            self._writer.ask(Question(experiments, sweep=self._identity, run_ids=own) if resume else Question())
            if resume:
                self._wait()
                if any(run.run_id in own and run.status == DELETED for run in self._stored):
                    self._before = None

    def _wait(self) -> None:
        if self._writer and not self._asked:
            self._asked = True
            self._stored = list(self._taken(self._writer.answer()).runs)

    def _taken(self, answer: Answer) -> Answer:
        if answer.refused:
            what = f"{self._store} cannot be used ({answer.refused}); to record here"
            raise Refused(Problem("tracking.uri", what, assign("tracking", "offline")))
        if answer.away:
            print(f"the store takes nothing now ({answer.away}): the sweep is recorded here, and sent later")
        return answer

    def _here(self, claim: index.Claim) -> list[Summary]:
        found = [journal.summary(folder) for folder in claim.journals()]
        return [each for each in found if each.is_in(self._store, self._experiments)]

    def _of(self, fingerprints: Sequence[str]) -> list[Summary]:
        """The runs of these fingerprints whose journals are here."""
        return [run for fingerprint in dict.fromkeys(fingerprints) for run in self._here(index.Claim(fingerprint))]

    def past_runs(self, fingerprints: Sequence[str]) -> list[PastRun]:
        """The runs of an equal sweep before, and those of these fingerprints that were recorded here."""
        if not (self._tracking.enabled and self._resume):
            return []
        here = self._of(fingerprints)
        ids = [run.delivered.run_id for run in here if run.delivered.run_id]
        answer = Answer(away="it was not asked")
        if self._writer and ids:
            self._writer.ask(Question(self._experiments, run_ids=ids))
            answer = self._writer.answer()
        kept = [run for run in here if not is_gone(run, answer)]
        if self._writer:
            for run in kept:
                if run.status == "FINISHED" and not run.delivered.complete:
                    self._writer.deliver(run.folder)
        for run in here:
            if run not in kept:  # its workers must not keep it either
                journal.note_delivered(run.folder, self._store, replace(run.delivered, gone=True))
        others = [run for run in self._stored if run.run_id not in ids and "sweep" not in run.tags]
        return [as_past_run(run) for run in kept] + [run for run in others if run.status != DELETED]

    def runs(self, fingerprints: Sequence[str], *, elsewhere: bool, interrupted: bool) -> list[PastRun]:
        """What became of the runs of the sweep, and those before that count; as far as possible they are delivered.

        Args:
            fingerprints: Of the jobs.
            elsewhere: Whether jobs may have run on other machines, whose journals are not here.
            interrupted: Whether the sweep was, and with it the jobs that another package's launcher has killed.
        """
        if not self._tracking.enabled:
            return []
        for run in self._of(fingerprints) if interrupted else ():
            if run.opened["parent"] == self.parent:
                journal.close_abandoned(run.folder, "KILLED", "interrupted")
        if self._writer:
            self._writer.finish("runs", PATIENCE["KILLED"] if interrupted else END_SECONDS)
        found = self.past_runs(fingerprints)
        if not self._resume:
            found = [as_past_run(run) for run in self._of(fingerprints) if run.opened["parent"] == self.parent]
        if elsewhere and self._writer and len({run.tags.get("fingerprint") for run in found}) < len(set(fingerprints)):
            self._writer.ask(Question(self._experiments, sweep=self._identity))
            found += self._writer.answer().runs
        return found

    def begin(self, folder: Path) -> None:
        """Open the parent run, or go on with the one before.

        Args:
            folder: For the sweep's output.

        Raises:
            Refused: The store will not take it.
            RunFailed: It cannot be recorded.
        """
        if not self._tracking.enabled:
            return
        self._wait()
        try:
            self._begin(folder)
        except OSError as error:
            raise RunFailed(f"the sweep could not be recorded: {error.strerror or error}") from error

    def _begin(self, folder: Path) -> None:
        now = int(time.time() * 1000)
        process = process_name(os.getpid())
        if self._before:
            known = self._before
            journal.close_abandoned(known.folder, "KILLED", "")
            self._journal, self.parent = Journal(known.folder), known.uuid
            self._journal.append(
                "resumed", started=now, earlier=known.seconds, process=process, number=known.resumed + 1
            )
            index.add_waiting(known.uuid, known.folder)
        else:
            self._journal, self.parent = Journal.create(folder), journal.new_uuid()
            index.add_waiting(self.parent, self._journal.folder)
            index.Claim(self._identity).add(self._journal.folder)
            tracking = self._tracking
            tags = origin(tracking, self._overrides, "python -m experiments.run -m") | {"sweep": self._identity}
            # MLflow takes no + in a name, and no @.
            swept = {key.lstrip("+").replace("@", ":"): value[:6000] for key, value in self._swept.items()}
            self._journal.append(
                "opened",
                uuid=self.parent,
                started=now,
                store=self._store,
                experiment=self._experiments[0],
                name=redact(tracking.run_name or f"sweep {record.run_name(self._overrides)}"),
                parent=None,
                tags=tags,
                parameters=swept,
                dataset=None,
            )
        if self._writer:
            self._writer.deliver(self._journal.folder)

    def settle(self, process: int, opened: Mapping[str, Any], output: Path, status: str, reason: str) -> PastRun | None:
        """See to it that the run of a worker process that is gone is recorded, and closed, as far as that can be.

        Args:
            process: The worker's.
            opened: What its first event says, if the worker died before it came to that: name, experiment, parameters,
                tags.
            output: The folder of its output.
            status: FAILED or KILLED.
            reason: Why, in words.
        """
        if not self._tracking.enabled:
            return None
        try:
            return self._settle(process, opened, output, status, redact(reason))
        except (OSError, RunFailed):  # the disk is full, for one; the other runs go on
            return None

    def _settle(self, process: int, opened: Mapping[str, Any], output: Path, status: str, reason: str) -> PastRun:
        claim = index.Claim(opened["tags"]["fingerprint"])
        folder = claim.journal_of(process)
        if folder is None or not journal.opening(folder):
            own = Journal.create(output)
            uuid = journal.new_uuid()
            index.add_waiting(uuid, own.folder)
            own.append(
                "opened",
                uuid=uuid,
                started=int(time.time() * 1000),
                store=self._store,
                parent=self.parent or None,
                dataset=None,
                **opened,
            )
            own.close()
            claim.add(own.folder)
            folder = own.folder
        journal.close_abandoned(folder, status, reason)
        return as_past_run(journal.summary(folder))

    def end(self, status: str, rows: Sequence[Mapping[str, Any]]) -> list[str]:
        """Record the ranked results, and end the parent run; return lines that say where it is recorded.

        Args:
            status: FINISHED, FAILED or KILLED.
            rows: See `sweep_results.write`; each with its ``uuid``, or an empty text.
        """
        if self._journal is None:
            return []
        own = self._journal
        own.append("results", rows=list(rows), experiments=self._experiments)
        own.append("closed", status=status, failure="", trace="")
        own.close()
        why = self._writer.finish(patience=PATIENCE.get(status, END_SECONDS)) if self._writer else ""
        found = journal.summary(own.folder).delivered
        rejected = [record.rejections(found.rejected)] if found.rejected else []
        if found.complete:
            self.run_id = found.run_id
            return [record.BENEATH.format(found.run_id), *rejected]
        not_sent = f", but not sent ({why})" if self._writer else ""
        return [f"recorded in {own.folder}{not_sent}", "send it:  python -m experiments.sync", *rejected]

    def close(self) -> None:
        """Let go of what was not begun."""
        if self._writer:
            self._writer.close()
        if self._claim:
            self._claim.release()
