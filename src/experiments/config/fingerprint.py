"""What a run is, as a hash: runs with the same fingerprint give the same result."""

import hashlib
import importlib.util
import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from experiments.config.schema import Config

# Where a run is recorded, what may be imported for it, where its data lies, and on how many cores it runs (but for the
# order of sums), change nothing about its result.
CANNOT_MATTER: Any = {"tracking": True, "resume": True, "trust": True, "data": {"path"}, "runtime": {"threads"}}


def fingerprint(config: Config, data_digest: str) -> str:
    """Hash the resolved config, the source code of this package and of those trusted, and the data's digest."""
    return _hash(config_fingerprint(config), source_digest(config.trust), data_digest)


def config_fingerprint(config: Config) -> str:
    """Hash the resolved config, without what cannot matter."""
    return _hash(json.dumps(config.model_dump(exclude=CANNOT_MATTER, exclude_unset=True), sort_keys=True))


def source_digest(trusted: Iterable[str]) -> str:
    """Hash the source files of this package and of trusted ones, as they are when this is asked first."""
    return _source_digest(tuple(sorted(trusted)))


@cache  # the code that runs is the code that was imported, whatever its files say later
def _source_digest(trusted: tuple[str, ...]) -> str:
    digests = []
    for package in ("experiments", *trusted):
        spec = importlib.util.find_spec(package)
        folders = (spec and spec.submodule_search_locations) or []
        files = [file for folder in folders for file in Path(folder).rglob("*.py")]
        if spec and spec.origin and not files:
            files = [Path(spec.origin)]  # a module of one file
        digests += [f"{file.name} {hashlib.sha256(file.read_bytes()).hexdigest()}" for file in sorted(files)]
    return _hash(*digests)


def _hash(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
