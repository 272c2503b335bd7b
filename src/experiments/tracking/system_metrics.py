"""Use of the machine while a run trains, once a second, under the names that MLflow gives it."""

import os
import threading
from collections.abc import Collection
from typing import TYPE_CHECKING

import psutil

from experiments.config import RunFailed

if TYPE_CHECKING:
    from experiments.tracking.journal import Journal

SECONDS = 1.0
MEGABYTE = 1e6


class SystemMetrics:
    """Writes the use of the machine into a journal until `stop`.

    Args:
        journal: Of the run.
        known: Metrics with their steps that the journal has; the steps go on after them.
    """

    def __init__(self, journal: "Journal", known: Collection[tuple[str, int]]) -> None:
        self._journal = journal
        self._step = 1 + max((step for name, step in known if name.startswith("system/")), default=-1)
        self._network = psutil.net_io_counters()
        self._stopped = threading.Event()
        psutil.cpu_percent()  # its first value says nothing
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Write the last values."""
        self._stopped.set()
        self._thread.join()

    def _follow(self) -> None:
        stopped = False
        while not stopped:
            stopped = self._stopped.wait(SECONDS)
            try:
                self._journal.append("metrics", sync=False, step=self._step, values=self._values())
            except RunFailed:  # the run finds out by itself
                return
            self._step += 1

    def _values(self) -> dict[str, float]:
        memory, disk, network = psutil.virtual_memory(), psutil.disk_usage(os.sep), psutil.net_io_counters()
        values = {
            "cpu_utilization_percentage": psutil.cpu_percent(),
            "system_memory_usage_megabytes": memory.used / MEGABYTE,
            "system_memory_usage_percentage": memory.used / memory.total * 100,
            "disk_usage_percentage": disk.percent,
            "disk_usage_megabytes": disk.used / MEGABYTE,
            "disk_available_megabytes": disk.free / MEGABYTE,
            "network_receive_megabytes": (network.bytes_recv - self._network.bytes_recv) / MEGABYTE,
            "network_transmit_megabytes": (network.bytes_sent - self._network.bytes_sent) / MEGABYTE,
        }
        return {f"system/{name}": round(value, 1) for name, value in values.items()}
