"""Finding a recorded run by its id, or by the beginning that tables show."""

import sqlite3
from contextlib import closing

import pytest
from pydantic import TypeAdapter

from experiments.config import Refused
from experiments.config.commands import RunId
from experiments.config.schema import Tracking
from experiments.tracking.client import open_store
from experiments.tracking.runs import look_up
from experiments.tracking.search import experiment_ids

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's own
IDS = ("aaaa1234" + "0" * 24, "aaaa5678" + "0" * 24, "12345678" + "0" * 24)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Tracking:
    file = tmp_path_factory.mktemp("store") / "mlflow.db"
    client = open_store(f"sqlite:///{file}")
    made = [client.create_run("0").info.run_id for _ in IDS]
    with closing(sqlite3.connect(file)) as connection:
        for wanted, run_id in zip(IDS, made, strict=True):
            for table in ("runs", "tags"):
                connection.execute(f"UPDATE {table} SET run_uuid = ? WHERE run_uuid = ?", (wanted, run_id))
        connection.commit()
    return Tracking(enabled=True, uri=f"sqlite:///{file}")


@pytest.mark.parametrize("which", [*IDS, "aaaa1", "aaaa5678", "12345678"])
def test_a_run_is_found_by_its_beginning(store: Tracking, which: str) -> None:
    assert look_up(which, store).run_id.startswith(which)


@pytest.mark.parametrize(
    ("which", "told"),
    [
        ("aaaa", "beginning of several ids"),
        ("bbbb", "there is no run 'bbbb'"),
        ("123", "there is no run '123' in this store; give at least 4 characters of its id"),
    ],
)
def test_what_names_no_single_run_is_refused(store: Tracking, which: str, told: str) -> None:
    with pytest.raises(Refused, match=told):
        look_up(which, store)


def test_an_experiment_is_found_whatever_its_name(store: Tracking) -> None:
    client = open_store(str(store.uri))
    for name in ("it's", 'say "x"', "50 %", "a\\"):
        made = client.create_experiment(name)
        assert experiment_ids(client, name) == [made]
    client.delete_experiment(made)
    with pytest.raises(Refused, match="there is no experiment"):
        experiment_ids(client, name)


def test_an_id_without_letters_is_text() -> None:
    adapter = TypeAdapter(RunId)
    assert adapter.validate_python(12345678) == "12345678"
    with pytest.raises(ValueError, match="string"):
        adapter.validate_python(True)
