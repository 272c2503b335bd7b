"""How long the texts of a config would become: OmegaConf resolves each reference anew, and a few lines can multiply."""

import re
from collections.abc import Iterator, Mapping, Sequence
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
    plain = OmegaConf.to_container(config, resolve=False)
    assert isinstance(plain, dict)
    sizes = _Sizes(plain)
    texts = {path: text for path, text in _texts(plain) if path[0] != "hydra"}
    try:
        added = {path: sizes.of(path) - len(text) for path, text in texts.items() if "${" in text}
    except RecursionError:
        return Problem("config", "its references ${...} refer to each other too deeply")
    if sum(added.values()) <= LARGEST:
        return None
    longest = max(added, key=lambda path: added[path])
    what = f"its references ${{...}} stand for {added[longest]:.2g} characters, expected at most {LARGEST} in a config"
    return Problem(dotted(longest), what)


class _Sizes:
    """Upper bounds of the numbers of characters that values have once they are resolved.

    Args:
        plain: The unresolved config.
    """

    def __init__(self, plain: Mapping[Any, Any]) -> None:
        self._values: dict[Path, Any] = dict(_nodes(plain))
        self._known: dict[Path, int] = {}

    def of(self, path: Path) -> int:
        """The size of a value; 0 where there is none."""
        if path not in self._values:
            return 0
        if path not in self._known:
            self._known[path] = 0  # OmegaConf itself refuses a value that refers to itself
            self._known[path] = self._sum(path, self._values[path])
        return self._known[path]

    def _sum(self, path: Path, value: Any) -> int:
        if isinstance(value, dict | list):
            return 1 + sum(self.of((*path, key)) for key in _keys(value))
        if not isinstance(value, str) or "${" not in value:
            return len(str(value))
        size = len(value)
        for dots, name in NAME.findall(value):
            inner = tuple(part for part in re.split(r"[.\[\]]+", name) if part)
            named = (*path[: len(path) - len(dots)], *inner) if dots else inner
            size += self.of(named) + (0 if dots else self.of(("hydra", *inner)))
        for _ in COMPUTED.findall(value):  # which value it names is not known
            size += max(map(self.of, list(self._values)))
        return size


def _keys(value: Mapping[Any, Any] | Sequence[Any]) -> list[str]:
    return [str(key) for key in (value if isinstance(value, dict) else range(len(value)))]


def _nodes(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    if path:
        yield path, value
    if isinstance(value, dict | list):
        for key, inner in zip(_keys(value), value.values() if isinstance(value, dict) else value, strict=True):
            yield from _nodes(inner, (*path, key))


def _texts(value: Any) -> Iterator[tuple[Path, str]]:
    return ((path, inner) for path, inner in _nodes(value) if isinstance(inner, str))
