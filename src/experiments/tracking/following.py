"""What the writer process does: it follows journals, applies them to a store, and answers questions about it."""

import os
import threading
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from experiments.tracking import index
from experiments.tracking.client import import_what_is_used_late
from experiments.tracking.delivered import delivered_to
from experiments.tracking.failures import Unavailable
from experiments.tracking.journal import JOURNAL, Event, at_work, is_sweep, opening
from experiments.tracking.lookup import Answer, Question, look_up
from experiments.tracking.summary import summary
from experiments.tracking.writer import Writer

FOLLOW_SECONDS = 0.5  # between two looks at the journals
LAST_TRIES_SECONDS = 2.0  # time for last tries at the end, if the store can take nothing
ORPHAN_SECONDS = 60.0  # time for the processes of a dead sweep to end their runs
LAUNCHER_SECONDS = 5.0  # time for the launcher of a killed job to record why it was killed
STUCK_SECONDS = 120.0  # a writer whose run has ended gives up after so long without progress
LONGEST_PAUSE = 60.0  # between two attempts at a store that can take nothing


class Following:
    """Follows journals, and answers, until the other side is gone and everything was delivered."""

    def __init__(self, connection: Connection, uri: str) -> None:
        self._connection, self._uri, self._writer = connection, uri, Writer(uri)
        self._orders, self._replying = SimpleQueue[Any](), threading.Lock()
        self._bytes: dict[Path, int] = {}  # of each journal, how many were delivered
        self._incomplete = list[Path]()  # those that were not delivered whole
        self._openings: dict[Path, Event] = {}  # the first events of the journals
        self._opened = 0
        self._again = 0.0  # when a store that could take nothing is tried again
        self._pause = 0.5

    def follow(self) -> None:
        """Deliver what the journals say, and answer, until the other side is gone; then deliver the rest."""
        with suppress(EOFError, OSError):
            while self._connection.poll(FOLLOW_SECONDS):
                self._receive()
        import_what_is_used_late()  # only now: before, a run waits for its answer
        threading.Thread(target=self._keep_receiving, daemon=True).start()
        while self._carry_out_orders():
            if time.monotonic() >= self._again:
                self._deliver(close=False)
        self._end()

    def _receive(self) -> None:
        """Answer a question at once, as a search waits for it; put any other order behind those before.

        Raises:
            EOFError: The other side is gone.
        """
        what = self._connection.recv()
        if isinstance(what, Question):
            self.reply(look_up(self._uri, what))
        else:
            self._orders.put(what)

    def _keep_receiving(self) -> None:
        """Receive beside deliveries, which may take long, until the other side is gone."""
        with suppress(EOFError, OSError):
            while True:
                self._receive()
        self._orders.put(None)

    def _carry_out_orders(self) -> bool:
        """Carry out what was ordered, until there is no order for a moment.

        Returns:
            Whether the other side is still there.
        """
        with suppress(Empty):
            while (what := self._orders.get(timeout=FOLLOW_SECONDS)) is not None:
                if isinstance(what, Path):
                    self._add(what)
                else:
                    number, which = what
                    self.reply((number, self._finish(LAST_TRIES_SECONDS, but_sweeps=which == "runs")))
            return False
        return True

    def reply(self, what: Answer | tuple[int, str] | bool) -> None:
        """Send an answer; the other side may be gone, and have named journals before."""
        with suppress(OSError), self._replying:
            self._connection.send(what)

    def _deliver(self, *, close: bool) -> str:
        """Deliver what is new; return why the store could take nothing, or an empty text."""
        if self._opened != self._writer.store.opened:  # its file is another one now: all of it again
            self._opened, self._bytes = self._writer.store.opened, dict.fromkeys(self._bytes, -1)
            self._incomplete = list(self._bytes)
            for folder in self._incomplete:
                if uuid := opening(folder).get("uuid"):
                    index.add_waiting(uuid, folder)
        self._find_runs_of_sweeps()
        for folder in list(self._incomplete):
            if _size(folder) == self._bytes[folder] and not close:
                continue
            try:
                state = self._writer.deliver(folder, close=close)
            except Unavailable as error:
                self._again = time.monotonic() + self._pause
                self._pause = min(2 * self._pause, LONGEST_PAUSE)
                return str(error)
            self._pause = 0.5
            self._bytes[folder] = state.bytes
            if state.complete or not folder.is_dir():
                self._incomplete.remove(folder)
        return ""

    def _find_runs_of_sweeps(self) -> None:
        """Follow the journals of the runs of those sweeps that are followed."""
        sweeps = {self._opening(folder)["uuid"] for folder in self._bytes if is_sweep(self._opening(folder))}
        for folder in index.waiting() if sweeps else ():
            if folder not in self._incomplete and self._opening(folder).get("parent") in sweeps:
                self._add(folder)

    def _opening(self, folder: Path) -> Event:
        """The first event of a journal; empty as long as it has none."""
        if not self._openings.get(folder):
            self._openings[folder] = opening(folder)
        return self._openings[folder]

    def _add(self, folder: Path) -> None:
        self._bytes[folder] = -1
        self._incomplete.append(folder)

    def _finish(self, patience: float, *, but_sweeps: bool = False) -> str:
        """Deliver all that there is, or all but sweeps; return why that was not possible, or an empty text."""
        end = time.monotonic() + patience
        while True:
            why = self._deliver(close=True)
            left = [folder for folder in self._incomplete if not (but_sweeps and is_sweep(self._opening(folder)))]
            if not left or (why and time.monotonic() > end):
                return why
            if time.monotonic() > end + patience:
                troubles = (delivered_to(folder, self._writer.name).trouble for folder in left)
                return next(filter(None, troubles), "another process is at work on it")
            time.sleep(FOLLOW_SECONDS)

    def _end(self) -> None:
        """The other side is gone, perhaps killed: its workers notice, and end their runs first."""
        threading.Thread(target=self._end_when_stuck, daemon=True).start()
        end = time.monotonic() + ORPHAN_SECONDS
        while time.monotonic() < end and any(map(at_work, self._incomplete)):
            time.sleep(FOLLOW_SECONDS)
        jobs = [folder for folder in self._incomplete if self._opening(folder).get("parent")]
        end = time.monotonic() + LAUNCHER_SECONDS
        while time.monotonic() < end and any(summary(folder).status == "RUNNING" for folder in jobs):
            time.sleep(FOLLOW_SECONDS)
        self._finish(LAST_TRIES_SECONDS)
        self._writer.close()

    def _end_when_stuck(self) -> None:
        """Leave what is left to `sync`, which could not have it otherwise."""
        applied, since = self._writer.applied, time.monotonic()
        while time.monotonic() - since < STUCK_SECONDS:
            time.sleep(1)
            if applied != self._writer.applied:
                applied, since = self._writer.applied, time.monotonic()
        os._exit(1)


def _size(folder: Path) -> int:
    try:
        return (folder / JOURNAL).stat().st_size
    except OSError:
        return 0
