"""What an interrupted run finds on disk: whole, or the one before."""

import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.engine.checkpoints import Checkpoints, State, remembered

PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
ARRAYS = st.sampled_from([np.arange(3), np.zeros((2, 0), np.float32), np.ones(2, bool), np.array(1.5, np.float16)])
VALUES = st.recursive(
    PLAIN | ARRAYS | st.just(np.float32(0.1)),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text() | st.integers(), inner, max_size=3)
    ),
    max_leaves=8,
)


def state(epochs: int, **changed: Any) -> State:
    usual: dict[str, Any] = {
        "epochs": epochs,
        "stopped": False,
        "seconds": 1.5,
        "threads": 2,
        "history": {"loss": [0.1 * epoch for epoch in range(epochs)]},
        "variables": [np.full((100, 3), epochs, np.float32)],
        "callbacks": [],
        "random": [],
    }
    return State(**usual | changed)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    for epochs in (1, 2, 3):
        Checkpoints(tmp_path).save(state(epochs))
    return tmp_path


def files(folder: Path) -> list[str]:
    return sorted(file.name for file in (folder / "checkpoints").iterdir())


@given(VALUES)
def test_what_is_remembered_comes_back(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    checkpoints = Checkpoints(tmp_path_factory.mktemp("run"))
    checkpoints.save(state(1, callbacks=[{"value": value}]))
    loaded = Checkpoints(checkpoints.folder).state
    assert loaded is not None
    assert_same(loaded.callbacks[0]["value"], value)


def assert_same(found: Any, expected: Any) -> None:
    assert type(found) is type(expected)
    if isinstance(expected, np.ndarray | np.generic):
        assert (found.dtype, found.shape, found.tobytes()) == (expected.dtype, expected.shape, expected.tobytes())
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    elif isinstance(expected, dict):
        assert_same(list(found.items()), list(expected.items()))
    else:
        assert found == expected


def test_what_cannot_be_written_down_is_left_out() -> None:
    class Owner:
        def __init__(self) -> None:
            self.wait, self.compare, self.objects, self.params = 3, np.less, np.array([self]), {"epochs": 5}

    assert remembered(Owner(), "params") == {"wait": 3}


def test_the_last_two_are_kept(saved: Path) -> None:
    assert files(saved) == ["epoch_000002.npz", "epoch_000003.npz"]
    found = Checkpoints(saved).state
    assert found is not None
    assert found.epochs == 3
    assert found.by_epoch == [{"loss": 0.1 * epoch} for epoch in range(3)]
    Checkpoints(saved).remove()
    assert Checkpoints(saved).state is None


@pytest.mark.parametrize("damage", ["cut", "changed", "empty", "other"])
def test_the_one_before_stands_in_for_a_damaged_one(saved: Path, damage: str) -> None:
    last = saved / "checkpoints" / "epoch_000003.npz"
    content = last.read_bytes()
    middle = len(content) // 2
    changed = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    last.write_bytes({"cut": content[:middle], "changed": changed, "empty": b"", "other": b"no npz"}[damage])
    found = Checkpoints(saved).state
    assert found is not None
    assert found.epochs == 2


def test_a_full_disk_leaves_those_before(saved: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, hard))
    try:
        with pytest.raises(OSError, match=r"."):
            Checkpoints(saved).save(state(4))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert files(saved) == ["epoch_000002.npz", "epoch_000003.npz"]
