"""Which runs are the same."""

import ast
import importlib.metadata
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from experiments.cli.checks import check_places
from experiments.config import Refused
from experiments.config import fingerprint as module
from experiments.config.fingerprint import (
    _source_digest,
    config_fingerprint,
    fingerprint,
    source_digest,
    without_packages,
)
from tests.composing import config
from tests.test_architecture import MODULES, imported

SETTINGS = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
SIZES = (54_000, 6_000, 10_000)
# Modules that training imports and that cannot change what comes out of it.
WITHOUT_EFFECT = {
    "": "the version number",
    "cli": "refuses a command, or lets it run",
    "cli.checks": "the same",
    "cli.command": "the same",
    "system.terminal": "prints",
    "system": "a name",
    "config": "passes on the names of its modules",
    "config.problems": "words of refusals",
    "config.checks": "refuses a config, or lets it be",
    "config.named": "refuses a name, or lets it be",
    "sweeps": "starts processes",
    "tracking.provenance": "names the machine",
    "tracking.recorder": "records what training measures",
    "tracking.record": "its types",
}


def of(*overrides: str, sizes: tuple[int, int, int] = SIZES) -> str:
    return fingerprint(config(*overrides), "digest", sizes)


@pytest.mark.parametrize(
    "override",
    [
        "tracking.run_name=x",
        "tracking=off",
        "resume=true",
        "data.path=x.npz",
        "runtime.threads=3",
        "runtime.steps_per_execution=7",
        "runtime.evaluation_batch_size=7",
    ],
)
def test_what_cannot_matter_does_not(override: str) -> None:
    assert config_fingerprint(config(override)) == config_fingerprint(config())
    assert of(override) == of()


@pytest.mark.parametrize("measured", ["metrics=[accuracy,{cosine_similarity:{axis:0}}]", "+loss.axis=0"])
def test_the_batch_size_counts_for_what_is_computed_over_a_batch(measured: str) -> None:
    assert of(measured, "runtime.evaluation_batch_size=7") != of(measured)


def test_trust_alone_changes_no_config() -> None:
    assert config_fingerprint(config("trust=[mine]")) == config_fingerprint(config())


@pytest.mark.parametrize(
    ("overrides", "same"),
    [
        (["objective=test_accuracy"], []),
        (["data.validation_size=0.1", "objective=val_accuracy"], ["data.validation_size=0.1"]),
        (["objective_mode=max"], []),
        (["runtime.xla=true"], []),  # chosen by `auto`: 5 epochs of 422 steps
        (["epochs=2", "runtime.xla=false"], ["epochs=2"]),
        (["model=convnet", "runtime.xla=false"], ["model=convnet"]),
        (["data.validation_size=0.1"], ["data.validation_size=6000"]),
        (["data.limit=54000"], ["data.limit=null"]),
        (["data.limit=99999999"], ["data.limit=null"]),
    ],
)
def test_a_default_is_what_auto_chooses(overrides: list[str], same: list[str]) -> None:
    assert of(*overrides) == of(*same)


@SETTINGS
@given(first=st.integers(0, 2**32 - 1), second=st.integers(0, 2**32 - 1))
def test_another_seed_is_another_run(first: int, second: int) -> None:
    prints = [config_fingerprint(config(f"seed={seed}")) for seed in (first, second)]
    assert (prints[0] == prints[1]) == (first == second)


@pytest.mark.parametrize("override", ["epochs=4", "optimizer.rho=0.8", "model.layer_sizes=[512,10]", "data.limit=9"])
def test_what_matters_does(override: str) -> None:
    assert config_fingerprint(config(override)) != config_fingerprint(config())


@pytest.mark.parametrize(
    ("overrides", "change"),
    [
        ([], "runtime.xla=false"),
        ([], "data.scale=1"),
        (["model=convnet"], "runtime.xla=true"),
        (["loss=dice"], "runtime.evaluation_batch_size=7"),
        (["loss=tversky"], "runtime.evaluation_batch_size=7"),
        (["+loss.reduction=sum"], "runtime.evaluation_batch_size=7"),
        (["loss.ignore_class=3"], "runtime.evaluation_batch_size=7"),
        (["metrics=[accuracy,theirs.M]", "trust=[theirs]"], "runtime.evaluation_batch_size=7"),
        (["+callbacks.x={name: theirs.C}", "trust=[theirs]"], "runtime.steps_per_execution=7"),
    ],
)
def test_settings_that_change_numbers_are_another_run(overrides: list[str], change: str) -> None:
    assert of(*overrides, change) != of(*overrides)


def test_the_order_of_callbacks_is_another_run() -> None:
    orders = ["callbacks=[early_stopping,best_weights]", "callbacks=[best_weights,early_stopping]"]
    assert of("data.validation_size=0.1", orders[0]) != of("data.validation_size=0.1", orders[1])


def test_other_data_is_another_run() -> None:
    prints = {fingerprint(config(), digest, SIZES) for digest in ("a", "b", "aa")}
    assert len({*prints, fingerprint(config(), "a", (54_000, 0, 10_000))}) == 4


@pytest.mark.parametrize("package", ["tensorflow", "keras", "numpy"])
def test_other_versions_are_another_run(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before, version = of(), importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0" if name == package else version(name))
    module._versions.cache_clear()
    assert of() != before
    module._versions.cache_clear()


@pytest.mark.parametrize(
    ("name", "value", "other"),
    [
        ("TF_ENABLE_ONEDNN_OPTS", "0", True),
        ("XLA_FLAGS", "--xla_cpu_enable_fast_math=true", True),
        ("XLA_FLAGS", "--xla_dump_to=/tmp/dumps", False),
        ("TF_XLA_FLAGS", "--tf_xla_auto_jit=2", True),
        ("TF_XLA_FLAGS", ' --tf_xla_persistent_cache_directory="/tmp/a b"', False),
        ("NVIDIA_TF32_OVERRIDE", "0", True),
        ("TF_DETERMINISTIC_OPS", "1", True),
        ("TF_ENABLE_ONEDNN_OPTS", "", False),
        ("TF_CPP_MIN_LOG_LEVEL", "0", False),
        ("ONEDNN_VERBOSE", "1", False),
        ("MKL_NUM_THREADS", "1", False),
        ("ONEDNN_MAX_CPU_ISA", "SSE41", True),
    ],
)
def test_flags_that_change_arithmetic_are_another_run(
    name: str, value: str, other: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(name, raising=False)
    before = of()
    monkeypatch.setenv(name, value)
    assert (of() != before) == other


def package(folder: Path, **files: str) -> None:
    folder.mkdir()
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)


def digests(folder: Path, change: str, trust: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The digest of the code before and after a change to a file."""
    monkeypatch.syspath_prepend(str(folder))
    found = []
    for text in (None, "K = 30\n"):
        if text:
            (folder / change).write_text(text)
        _source_digest.cache_clear()
        found.append(source_digest((trust,)))
    _source_digest.cache_clear()
    return found


def test_the_code_of_a_trusted_package_matters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "mine.py").write_text("a = 1\n")
    before = source_digest(("mine",))
    assert source_digest(("mine",)) == before != source_digest(())
    (tmp_path / "mine.py").write_text("a = 2\n")
    assert source_digest(("mine",)) == before, "the code that runs is the code that was there first"
    _source_digest.cache_clear()
    assert source_digest(("mine",)) != before


@pytest.mark.parametrize("trust", ["mypkg", "mypkg.layers"])
def test_a_trusted_modules_siblings_matter(tmp_path: Path, trust: str, monkeypatch: pytest.MonkeyPatch) -> None:
    package(tmp_path / "mypkg", __init__="", layers="from mypkg.consts import K\n", consts="K = 1\n")
    before, after = digests(tmp_path, "mypkg/consts.py", trust, monkeypatch)
    assert before != after


@pytest.mark.parametrize("trust", ["nope", "nope.sub", "__main__"])
def test_a_trusted_package_that_is_not_there_is_refused(trust: str) -> None:
    with pytest.raises(Refused, match=re.escape(f"trust[0]: got {trust}, but there is no package")):
        check_places(config("data=digits", "tracking=off", f"trust=[{trust}]"))
    assert source_digest([trust]) == source_digest([])


def test_only_code_that_trains_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every module that is imported by one of the list is in the list, or in that of modules without an effect."""
    files = {name.replace("/", "."): name for name in module.TRAINING}
    listed = [name for name in MODULES if name in files or name.partition(".")[0] in files]
    assert all(any(each == name or each.startswith(f"{name}.") for each in listed) for name in files)
    found: dict[str, Any] = {}
    for name in listed:
        found |= dict.fromkeys(set(imported(ast.parse(MODULES[name].read_text()))) - set(listed), name)
    assert set(found) <= set(WITHOUT_EFFECT), found


def test_a_module_that_a_package_lacks_is_found_without_importing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lacking" / "inner").mkdir(parents=True)
    for name in ("__init__", "inner/__init__", "inner/layers"):
        (tmp_path / "lacking" / f"{name}.py").write_text("raise RuntimeError")
    monkeypatch.syspath_prepend(tmp_path)
    assert without_packages(["lacking", "lacking.inner", "lacking.inner.layers", "keras.layers"]) == []
    wrong = ["lacking.missing", "lacking.inner.missing", "lacking.inner.layers.missing", "no_such_package"]
    assert [problem.where for problem in without_packages(wrong)] == [f"trust[{index}]" for index in range(4)]
