"""How long the texts of a config would become: OmegaConf resolves each reference anew, and a few lines can multiply."""

import re
from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf

from experiments.config.problems import Problem, dotted

LARGEST = 100_000  # characters that references add to a config
# What may name a value: the text of a reference, or an argument of a resolver.
NAME = re.compile(r"(?:\$\{|[:,])\s*(\.*)([^\s${},:]*)")
COMPUTED = re.compile(r"\$\{[^}]*\$\{")  # a reference inside of a reference

Path = tuple[str, ...]


def too_long(config: DictConfig) -> Problem | None:
    """Find a value that references multiply to more than `LARGEST` characters; nothing is resolved."""
    values = dict(_values(OmegaConf.to_container(config, resolve=False)))
    sizes: dict[Path, int] = {}
    try:
        added = {
            path: _size(path, values, sizes) - len(text)
            for path, text in values.items()
            if isinstance(text, str) and "${" in text and path[0] != "hydra"
        }
    except RecursionError:
        return Problem("config", "its references ${...} refer to each other too deeply")
    if sum(added.values()) <= LARGEST:
        return None
    longest = max(added, key=lambda path: added[path])
    what = f"its references ${{...}} stand for {added[longest]:.2g} characters, expected at most {LARGEST} in a config"
    return Problem(dotted(longest), what)


def _values(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield every value nested in a value, with its path."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        yield (*path, str(key)), each
        yield from _values(each, (*path, str(key)))


def _size(path: Path, values: dict[Path, Any], sizes: dict[Path, int]) -> int:
    """An upper bound of the characters that a value has once it is resolved; 0 where there is none. Fills `sizes`."""
    if path in sizes or path not in values:
        return sizes.get(path, 0)
    value, sizes[path] = values[path], 0  # OmegaConf itself refuses a value that refers to itself
    parts: list[Path] = []
    if isinstance(value, dict | list):
        parts = [(*path, str(key)) for key in (value if isinstance(value, dict) else range(len(value)))]
    for dots, name in NAME.findall(value) if isinstance(value, str) and "${" in value else ():
        inner = tuple(part for part in re.split(r"[.\[\]]+", name) if part)
        parts += [(*path[: len(path) - len(dots)], *inner)] if dots else [inner, ("hydra", *inner)]
    size = (1 if isinstance(value, dict | list) else len(str(value))) + sum(
        _size(each, values, sizes) for each in parts
    )
    for _ in COMPUTED.findall(value) if isinstance(value, str) else ():  # which value it names is not known
        size += max(_size(each, values, sizes) for each in values)
    sizes[path] = size
    return size
