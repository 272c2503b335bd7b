"""The store that journals are delivered to, and what is looked for in it meanwhile."""

import sqlite3
from collections.abc import Sequence
from typing import Any

from experiments.tracking.client import experiment, open_store
from experiments.tracking.search import UUID
from experiments.tracking.sqlite import sqlite_file


class Store:
    """A store that journals are delivered to: opened, or created, when it is used first.

    Args:
        uri: Its address.

    Attributes:
        opened: How often it was opened: a SQLite file that was removed or replaced since is opened, or made, anew.
    """

    def __init__(self, uri: str) -> None:
        self.uri, self.opened = uri, 0
        self._client: Any = None
        self._file: tuple[int, int] | None = None
        self._held: sqlite3.Connection | None = None
        self._experiments: dict[str, str] = {}
        self._parents: dict[str, str] = {}

    @property
    def client(self) -> Any:
        """MLflow's client."""
        if self._client is None or self._file != _identity(self.uri):
            self._experiments.clear()
            self._parents.clear()
            self._client = open_store(self.uri)
            self.opened += 1
            self._file = _identity(self.uri)
            self.close()
            if file := sqlite_file(self.uri):  # as long as it is open, its write-ahead log stays, which is faster
                self._held = sqlite3.connect(file, check_same_thread=False)
                self._held.execute("PRAGMA schema_version").close()
        return self._client

    def close(self) -> None:
        """Let go of the store."""
        if self._held:
            self._held.close()

    def experiment(self, name: str) -> str:
        """MLflow's id of an experiment; it is created where it is missing."""
        client = self.client  # first: it may forget the experiments
        if name not in self._experiments:
            self._experiments[name] = experiment(client, name, self.uri)
        return self._experiments[name]

    def parent(self, uuid: str) -> str:
        """MLflow's id of a parent run: of a sweep of ours, or one that a user named by that id."""
        client = self.client
        if uuid not in self._parents:
            found = self.find(uuid, [each.experiment_id for each in client.search_experiments()])
            if found is None and not self.has(uuid):
                raise ValueError(f"its sweep is not in the store yet, which has no run {uuid}")
            self._parents[uuid] = found.info.run_id if found else uuid
        return self._parents[uuid]

    def find(self, uuid: str, experiments: Sequence[str]) -> Any:
        """The run of ours with this uuid, also a deleted one; None if there is none."""
        from mlflow.entities import ViewType

        if not uuid.isalnum():
            raise ValueError(f"{uuid!r} is no uuid of a run")
        condition = f"tags.`{UUID}` = '{uuid}'"
        found = self.client.search_runs(list(experiments), condition, ViewType.ALL, 1, ["attributes.start_time ASC"])
        return found[0] if found else None

    def has(self, run_id: str) -> bool:
        """Whether there is a run with this id of MLflow's."""
        from mlflow.exceptions import MlflowException

        try:
            self.client.get_run(run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":  # a proxy says 404, too
                raise
            return False
        return True


def _identity(uri: str) -> tuple[int, int] | None:
    """Which file a SQLite store is now; None for other stores."""
    if (file := sqlite_file(uri)) is None:
        return None
    try:
        found = file.stat()
    except OSError:
        return 0, 0
    return found.st_dev, found.st_ino
