"""Delivers journals to a store: applies the events that it lacks, now or later."""

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from experiments.tracking import index, lock
from experiments.tracking.connection import Store
from experiments.tracking.delivered import Delivered, delivered_to, note_delivered
from experiments.tracking.failures import Deleted, Unavailable, asked
from experiments.tracking.journal import Event, at_work, is_sweep, opening, read, sync
from experiments.tracking.store import reason, redact, store_name
from experiments.tracking.summary import close_abandoned

DIED = "The training process died and no message: killed, or out of memory."


class Writer:
    """Applies journals to one store.

    Args:
        uri: The store. It is opened, or created, when the first event is applied.

    Attributes:
        store: The store.
        name: What it is called in journals.
        applied: How many events were applied.
    """

    def __init__(self, uri: str) -> None:
        self.store, self.name, self.applied = Store(uri), store_name(uri), 0
        self._seen: tuple[int, set[Path]] = 0, set()  # journals whose runs were found in the store, as it was opened

    def close(self) -> None:
        """Let go of the store."""
        self.store.close()

    def deliver(
        self, folder: Path, *, close: bool = True, only_opening: bool = False, again: bool = False, patience: float = 0
    ) -> Delivered:
        """Apply what the store does not have of a journal.

        Args:
            folder: Of the journal.
            close: Close the journal before, if its process was killed.
            only_opening: Leave the results of a sweep for later.
            again: Apply all of it, whatever the store is said to have.
            patience: How long to wait for another process that delivers it, in seconds.

        Raises:
            Unavailable: The store can take nothing now.
        """
        try:
            place = os.open(folder, os.O_RDONLY)
        except OSError as error:  # it was deleted, for one: other journals can be delivered
            return Delivered(trouble=reason(error))
        try:
            if not lock.hold(place, patience):  # another process delivers it
                state = delivered_to(folder, self.name)
                return state if state.complete else replace(state, trouble="another process is sending it")
            state = self._state(folder)
            state = replace(state, bytes=0, complete=False, rejected=()) if again else state
            if close and not state.complete and not at_work(folder):
                # A sweep is resumed rather than mended.
                close_abandoned(folder, *(("KILLED", "") if is_sweep(opening(folder)) else ("FAILED", DIED)))
            return self._deliver(folder, state, only_opening)
        except OSError as error:
            raise Unavailable(reason(error)) from error
        finally:
            os.close(place)

    def _state(self, folder: Path) -> Delivered:
        """What the store has of a journal. Nothing, if it lacks the run, as its file is another one now."""
        state = delivered_to(folder, self.name)
        if state.run_id:
            asked(lambda: self.store.client)  # first: it may be another file now
            if self._seen[0] != self.store.opened:
                self._seen = self.store.opened, set()
            if folder not in self._seen[1] and not asked(lambda: self.store.has(state.run_id)):
                return Delivered()
        self._seen[1].add(folder)
        return state

    def _deliver(self, folder: Path, state: Delivered, only_opening: bool) -> Delivered:
        from experiments.tracking.events import batches

        left = list(batches(read(folder, state.bytes)))
        if left:
            sync(folder)
        try:
            for batch, end in left:
                first = batch[0]
                if first["event"] == "results" and (only_opening or any(map(_waits, first["rows"]))):
                    return state  # the results of a sweep come after its runs
                state = self._applied(folder, batch, state)
                if not state.trouble:
                    state = replace(state, bytes=end, complete=first["event"] == "closed")
                note_delivered(folder, self.name, state)
                if state.trouble:  # without a run nothing can be applied
                    return state
        except Deleted as gone:
            (*_, last), end = left[-1]
            why = f"run {gone} was deleted there"
            state = Delivered(str(gone), end, complete=last["event"] == "closed", rejected=(why,))
            note_delivered(folder, self.name, state)
        except Unavailable as error:
            with suppress(OSError):
                note_delivered(folder, self.name, replace(state, trouble=str(error)))
            raise
        if state.complete and (uuid := opening(folder).get("uuid")):
            index.remove_waiting(uuid)
            if any(read(folder, state.bytes)):  # it has just been resumed
                index.add_waiting(uuid, folder)
        return state

    def _applied(self, folder: Path, batch: Sequence[Event], state: Delivered) -> Delivered:
        """Apply an event, or several epochs at once. What is rejected for good is set aside with the reason."""
        from experiments.tracking.events import APPLY, Target

        kind, target = batch[0]["event"], Target(self.store, folder, state.run_id)
        try:
            asked(lambda: APPLY[kind](target, *batch))
            rejected = target.rejected
        except (Unavailable, Deleted):
            raise
        except Exception as error:  # what MLflow rejects, and what a damaged or foreign journal leads to
            rejected = [redact(reason(error))]
            if kind == "opened":
                return replace(state, trouble=f"opened: {rejected[0]}")
        self.applied += 1
        unique = dict.fromkeys(f"{kind}: {why}" for why in rejected)  # it may have been tried again
        return replace(state, run_id=target.run_id, trouble="", rejected=(*state.rejected, *unique))


def _waits(row: Event) -> bool:
    return index.is_waiting(row["uuid"])
