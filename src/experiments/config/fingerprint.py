"""What a run is, as a hash: runs with the same fingerprint give the same result on the same kind of processor."""

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import re
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES, SOURCE_SUFFIXES, ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

from experiments.config.choices import choose
from experiments.config.measures import named_metrics
from experiments.config.problems import Problem
from experiments.config.schema import Config

# Where a run is recorded, what may be imported for it, where its data lies, and on how many cores it runs (but for the
# order of sums), change nothing about its result. The settings of `runtime` that do: see `_runtime`.
CANNOT_MATTER: Any = {
    "tracking": True,
    "resume": True,
    "trust": True,
    "data": {"path", "function"},
    "runtime": {"threads", "steps_per_execution", "checkpoint_every"},
}
# The modules and folders of this package that decide what comes out of a run. A test follows their imports.
TRAINING = (
    "config/callback_checks",
    "config/choices",
    "config/keras_names",
    "config/measures",
    "config/schema",
    "data",
    "engine",
    "run",
    "system/imports",
    "system/resources",
    "task",
)
PACKAGE = Path(__file__).parents[1]
VERSIONED = ("tensorflow", "keras", "numpy")
# Variables of the environment by which TensorFlow and its libraries compute differently.
FLAGS = re.compile(
    r"XLA_FLAGS|TF_XLA_FLAGS|NVIDIA_TF32_OVERRIDE|(ONEDNN|DNNL|MKL|CUBLAS|CUDNN)_\w+"
    r"|TF_(ENABLE|DISABLE|DETERMINISTIC|CUDNN|CUBLAS|USE|FP16|BF16|FP32|MKL|ONEDNN|AUTO_MIXED|CONV|MATMUL)\w*"
)
# Those of them that concern output only, TensorFlow's older Keras, or how many threads compute, which joblib sets.
WITHOUT_EFFECT = re.compile(r"\w*_(VERBOSE|LOG\w*|NUM_THREADS)|TF_USE_LEGACY_KERAS")
# Where XLA keeps its programs and writes its dumps.
XLA_FILES = re.compile(r"""--(tf_xla_persistent_cache|xla_dump)\w*(=("[^"]*"|'[^']*'|\S*))?""")
# Losses that are no means over images: the mean over batches depends on how large those are.
LOSSES_OF_BATCHES = frozenset({"circle", "dice", "tversky"})
MEANS = frozenset({"sum_over_batch_size", "mean", "mean_with_sample_weight"})


def fingerprint(config: Config, data_digest: str, sizes: Sequence[int]) -> str:
    """Hash all that a result follows from: config, code, data, versions and flags.

    Args:
        config: The config.
        data_digest: Of all arrays of the data set.
        sizes: Number of images to train on, to validate with and to test with.
    """
    plain = _what_matters(config)
    plain["data"] = {key: value for key, value in plain["data"].items() if key not in ("limit", "validation_size")}
    plain["sizes"] = list(sizes)
    plain["runtime"]["xla"] = choose(config, sizes[0], threads=1, gpus=False).xla
    return _hash(_as_json(plain), source_digest(config.trust), data_digest, *_versions(), *environment_flags())


def config_fingerprint(config: Config) -> str:
    """Hash the resolved config, without what cannot matter."""
    return _hash(_as_json(_what_matters(config)))


def source_digest(trusted: Iterable[str]) -> str:
    """Hash the code that trains: ours, and the packages of what is trusted. It is that of the first call.

    Args:
        trusted: Packages and modules. Of each, the whole top-level package counts, as its modules import each other.
    """
    return _source_digest(tuple(sorted({name.partition(".")[0] for name in trusted})))


@cache  # the code that runs is the code that was imported, whatever its files say later
def _source_digest(trusted: tuple[str, ...]) -> str:
    digests = [_digest(PACKAGE, name) for name in TRAINING]
    for package in trusted:
        spec = _found(package)
        folders = (spec and spec.submodule_search_locations) or []
        digests += [_digest(Path(folder).parent, Path(folder).name) for folder in folders]
        if spec and spec.origin and not folders:  # a module of one file
            digests.append(_digest(Path(spec.origin).parent, Path(spec.origin).name))
    return _hash(*digests)


def without_packages(trusted: Sequence[str]) -> list[Problem]:
    """List the entries of `trust` that are not installed. Nothing of them is imported."""
    problems = []
    for index, name in enumerate(trusted):
        spec = _found(package := name.partition(".")[0])
        if spec is None:
            what = (
                f"there is no package {package} to import; it is looked for in the current folder, in the "
                "folders of $PYTHONPATH and among the installed packages"
            )
            problems.append(Problem(f"trust[{index}]", f"got {name}, but {what}"))
        elif _lacks(spec, name.split(".")[1:]):
            what = f"got {name}, but {package} has no such module; trust the whole package, or one of its modules"
            problems.append(Problem(f"trust[{index}]", what, f"trust=[{package}]"))
    return problems


def _lacks(spec: ModuleSpec, inner: Sequence[str]) -> bool:
    """Whether a package has no such module among its files; nothing of it is imported."""
    folders = spec.submodule_search_locations
    for part in inner:
        found = PathFinder.find_spec(part, folders) if folders is not None else None
        if found is None:
            return True
        folders = found.submodule_search_locations
    return False


def _found(package: str) -> ModuleSpec | None:
    """Find a top-level package or module; to find a nested one, Python would import its parents."""
    return None if package == "__main__" else importlib.util.find_spec(package)


def _digest(root: Path, name: str) -> str:
    """Hash a module, or all modules in a folder."""
    module, suffixes = root / name, (*SOURCE_SUFFIXES, *EXTENSION_SUFFIXES)
    if module.is_dir():
        files = [file for file in module.rglob("*") if file.name.endswith(suffixes) and file.is_file()]
    else:
        files = [module if module.suffix else module.with_suffix(".py")]
    digests = {file.relative_to(root).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    return _hash(*(f"{file} {digest}" for file, digest in sorted(digests.items())))


@cache
def _versions() -> tuple[str, ...]:
    return tuple(f"{name} {importlib.metadata.version(name)}" for name in VERSIONED)


def environment_flags() -> list[str]:
    """Variables of the environment that change how TensorFlow computes, as ``NAME=value``, in order."""
    flags = []
    for name, value in sorted(os.environ.items()):
        if FLAGS.fullmatch(name) and not WITHOUT_EFFECT.fullmatch(name):
            effective = " ".join(XLA_FILES.sub("", value).split())
            flags += [f"{name}={effective}"] if effective else []
    return flags


def _what_matters(config: Config) -> dict[str, Any]:
    plain = config.model_dump(exclude=CANNOT_MATTER, exclude_unset=True)
    plain["objective"] = config.objective_metric
    plain["objective_mode"] = "min" if config.lower_is_better else "max"
    plain["callbacks"] = list(plain["callbacks"].items())  # one may see what the one before it has done
    plain["runtime"] = _runtime(config)
    return plain


def _runtime(config: Config) -> dict[str, Any]:
    """The settings that can matter. Code of the user's own may depend on how often it is called."""
    loss, metrics = config.loss, named_metrics(config.metrics)
    arguments = loss.arguments()
    matters: dict[str, Any] = {"xla": config.runtime.xla}
    of_batches = (
        loss.name.lower() in LOSSES_OF_BATCHES
        or arguments.get("reduction", "mean") not in MEANS
        or arguments.get("ignore_class") is not None
        or any(each.get("axis", -1) in (0, -2) for each in (arguments, *(metric.arguments for metric in metrics)))
    )
    if of_batches or any("." in name for name in (loss.name, *(metric.cls for metric in metrics))):
        matters["evaluation_batch_size"] = config.runtime.evaluation_batch_size
    if any("." in callback.name for callback in config.callbacks.values()):
        matters["steps_per_execution"] = config.runtime.steps_per_execution
    return matters


def _as_json(plain: Any) -> str:
    return json.dumps(plain, sort_keys=True)


def _hash(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
