"""Which runs are the same."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from experiments.config.fingerprint import _source_digest, config_fingerprint, fingerprint, source_digest
from tests.composing import config

SETTINGS = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize(
    "override",
    ["tracking.run_name=x", "tracking=off", "resume=true", "trust=[mine]", "data.path=x.npz", "runtime.threads=3"],
)
def test_what_cannot_matter_does_not(override: str) -> None:
    assert config_fingerprint(config(override)) == config_fingerprint(config())


@SETTINGS
@given(first=st.integers(0, 2**32 - 1), second=st.integers(0, 2**32 - 1))
def test_another_seed_is_another_run(first: int, second: int) -> None:
    prints = [config_fingerprint(config(f"seed={seed}")) for seed in (first, second)]
    assert (prints[0] == prints[1]) == (first == second)


@pytest.mark.parametrize("override", ["epochs=4", "optimizer.rho=0.8", "model.layer_sizes=[512,10]", "data.limit=9"])
def test_what_matters_does(override: str) -> None:
    assert config_fingerprint(config(override)) != config_fingerprint(config())


def test_other_data_is_another_run() -> None:
    assert fingerprint(config(), "a") != fingerprint(config(), "b") != fingerprint(config(), "a" * 2)


def test_the_code_of_a_trusted_package_matters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "mine.py").write_text("a = 1\n")
    before = source_digest(("mine",))
    assert source_digest(("mine",)) == before != source_digest(())
    (tmp_path / "mine.py").write_text("a = 2\n")
    assert source_digest(("mine",)) == before, "the code that runs is the code that was there first"
    _source_digest.cache_clear()
    assert source_digest(("mine",)) != before
