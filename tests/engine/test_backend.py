import importlib.util
import json
import os
import random
import re
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from experiments.config import Refused, RunFailed
from experiments.engine import backend
from experiments.system import imports, resources
from tests.composed import keras

START = """
import sys
from experiments.engine import backend
assert "keras" not in sys.modules
backend.start(1, "mixed_bfloat16", 5)
import keras, tensorflow as tf
print(keras.backend.backend(), keras.config.dtype_policy().name, tf.config.threading.get_intra_op_parallelism_threads())
print(keras.config.epsilon(), keras.config.image_data_format(), keras.config.floatx(), keras.config.max_epochs())
print("pandas" in sys.modules, "sklearn" in sys.modules)
import pandas, sklearn
"""


def test_it_starts_quietly_on_tensorflow_whatever_keras_json_says(tmp_path: Path) -> None:
    settings = {"backend": "torch", "floatx": "float16", "epsilon": 1e-3, "image_data_format": "channels_first"}
    (tmp_path / "keras.json").write_text(json.dumps(settings))
    environment = {**os.environ, "KERAS_HOME": str(tmp_path), "KERAS_MAX_EPOCHS": "1"}
    environment.pop("TF_CPP_MIN_LOG_LEVEL", None)
    done = subprocess.run([sys.executable, "-c", START], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == [
        "tensorflow mixed_bfloat16 1",
        "1e-07 channels_last float32 None",
        "False False",
    ]
    assert done.stderr == ""
    assert done.returncode == 0


def test_an_empty_keras_home_is_as_none(tmp_path: Path) -> None:
    environment = {**os.environ, "KERAS_HOME": "", "HOME": str(tmp_path / "home")}
    (tmp_path / "home").mkdir()
    script = "from experiments.system import imports; imports.import_keras()"
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, check=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home"]
    assert (tmp_path / "home/.keras/keras.json").is_file()


@pytest.mark.parametrize("settings", ["[1]", '{"epsilon": 1}', '{"floatx": "int8"}'])
def test_a_keras_json_that_keras_cannot_read_is_named(
    settings: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    (tmp_path / "keras.json").write_text(settings)
    source = importlib.util.find_spec("keras.src.backend.config")
    assert source
    told = re.escape(f"{tmp_path}/keras.json: Keras cannot read it: ")
    with pytest.raises(Refused, match=told), imports.readable_settings():
        runpy.run_path(str(source.origin))


def test_a_start_sets_precision_and_seed_anew() -> None:
    def draw(seed: int) -> np.ndarray:
        backend.start("auto", "float32", seed)
        return np.asarray(keras.layers.Dense(3).kernel_initializer((4, 4)))

    backend.start("auto", "mixed_float16", 1)
    assert keras.layers.Dense(1).compute_dtype == "float16"
    first = draw(1)
    assert keras.layers.Dense(1).compute_dtype == "float32"
    np.testing.assert_array_equal(first, draw(1))
    assert not np.array_equal(first, draw(2))


def test_threads_cannot_change_in_a_process() -> None:
    count = backend.start("auto", "float32", 0)
    assert count == resources.available_cores()
    keras.ops.add(1, 1)  # from here on TensorFlow runs
    with pytest.raises(RunFailed, match=r"runtime\.threads cannot change"):
        backend.start(count + 1, "float32", 0)


def test_layers_without_arrays_leave_no_trace() -> None:
    """Neither on random numbers, nor on names, nor on settings, nor on what Keras makes later."""
    backend.start("auto", "mixed_bfloat16", 3)
    state, made = random.getstate(), list[tuple[int, ...]]()

    def initializer(shape: tuple[int, ...], dtype: str) -> np.ndarray:
        made.append(shape)
        return np.zeros(shape, dtype)

    def build() -> int:
        layer = keras.layers.Dense(10**6, kernel_initializer=initializer)
        layer(keras.Input((10**9,)))
        return int(layer.count_params())

    assert backend.without_arrays(build) == 10**15 + 10**6
    assert random.getstate() == state
    layer = keras.layers.Dense(1, kernel_initializer="zeros")
    layer(keras.Input((3,)))
    assert (layer.name, layer.compute_dtype, made) == ("dense", "bfloat16", [])
    backend.start("auto", "float32", 3)


@pytest.mark.parametrize(
    ("groups", "limits", "expected"),
    [
        ("0::/", {"memory.max": "7000"}, 7000),
        ("0::/", {"memory.max": "max"}, 9000),
        ("0::/user.slice/job", {"user.slice/memory.max": "6000", "user.slice/job/memory.max": "max"}, 6000),
        ("0::/user.slice/job", {"user.slice/memory.max": "6000", "user.slice/job/memory.max": "5000"}, 5000),
        ("4:memory:/slurm/job\n0::/", {"memory/slurm/job/memory.limit_in_bytes": "4000"}, 4000),
        ("4:memory:/docker/outside", {"memory/memory.limit_in_bytes": "3000", "other/memory.max": "1"}, 3000),
        ("3:cpuset:/a", {"a/memory.max": "1"}, 9000),
    ],
)
def test_memory_is_what_is_free_within_the_limits_of_all_groups_around(
    groups: str, limits: dict[str, str], expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=9000))
    own = tmp_path / "own"
    own.write_text(f"{groups}\n")
    for name, limit in limits.items():
        (tmp_path / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / name).write_text(f"{limit}\n")
    monkeypatch.setattr(resources, "OWN_GROUPS", str(own))
    monkeypatch.setattr(resources, "GROUPS", str(tmp_path / "groups"))
    assert resources.available_memory() == expected


def test_what_fails_during_a_quiet_start_is_shown(capfd: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        with imports.quiet_stderr():
            os.write(2, b"the reason")
            raise ImportError

    with pytest.raises(ImportError):
        fail()
    assert capfd.readouterr().err == "the reason"
    with imports.quiet_stderr():
        os.write(2, b"noise")
    assert capfd.readouterr().err == ""


FLAGS = """
import os, time
from experiments.config import Refused
from experiments.engine import backend
from experiments.system.imports import import_keras
import_keras()
import tensorflow as tf

def check(flags):
    os.environ["TF_XLA_FLAGS"] = flags
    backend.refuse_wrong_flags.cache_clear()
    try:
        backend.refuse_wrong_flags()
        print("usable", flags)
    except Refused as refused:
        print(refused)

for flags in ("junk", "--nope", "--tf_xla_auto_jit=x", "--tf_xla_auto_jit=2"):
    check(flags)
os.environ["TF_XLA_FLAGS"] = ""
for value in ("yes", "1"):
    os.environ["TF_DETERMINISTIC_OPS"] = value
    check("")
backend.PATIENCE, function = 1, tf.function
tf.function = lambda *_, **__: time.sleep(5)
check("--slow")
tf.function = function
os.environ["TF_XLA_FLAGS"] = ""
tf.constant(1) + 1
check("--never-read")
"""


def test_flags_that_would_end_the_process_are_refused(tmp_path: Path) -> None:
    """Not those that it took too long to try, nor those that TensorFlow, which runs already, does not read."""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", FLAGS], env=environment, capture_output=True, text=True, check=True)
    said = [
        line.removeprefix("error: TF_XLA_FLAGS: TensorFlow cannot use these flags (")
        for line in done.stdout.splitlines()
    ]
    assert said[0].startswith('Could not open file "junk" to read flags')
    assert said[4].startswith("error: TF_DETERMINISTIC_OPS: TensorFlow cannot use these flags (Check failed: ")
    assert said[1:] == [
        "Unknown flag in TF_XLA_FLAGS: --nope); correct or unset them",
        "--tf_xla_auto_jit=x); correct or unset them",
        "usable --tf_xla_auto_jit=2",
        said[4],
        "usable ",
        "usable --slow",
        "usable --never-read",
    ]
    assert list(tmp_path.iterdir()) == []
