"""YAML from untrusted files: records, and the user's configs (Hydra's errors do not name the broken file)."""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, cast

import yaml
from hydra.errors import HydraException
from omegaconf import Container, DictConfig, OmegaConf

from experiments.config.problems import BEYOND_64_BITS, Problem, beyond_64_bits, dotted, first_lines

LARGEST = 100_000  # values in a file
DEEPEST = 100  # lists and mappings within each other, in a file or an override; parsers take seconds for a thousand
# The user's config folders of this command; the first counts first. See `hydra_plugins.experiments_sweeps`.
own_folders: list[str] = []


class ShallowLoader(yaml.SafeLoader):
    """Reads YAML that is nested up to `DEEPEST` levels.

    Raises:
        RecursionError: It is nested deeper.
    """

    depth = 0

    def fetch_flow_collection_start(self, token: Any) -> None:
        """Note an opening bracket; the parser looks at a thousand of them before it composes the first."""
        _refuse_deeper(self.flow_level)
        super().fetch_flow_collection_start(token)

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Read the next value."""
        _refuse_deeper(self.depth)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class PlainLoader(ShallowLoader):
    """Reads YAML without aliases, which we never write: a few lines of them can stand for billions of values."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Read the next value, which must not refer to an earlier one."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it has aliases")
        return super().compose_node(parent, index)


def plain_yaml(text: str) -> Any:
    """Read plain YAML: mappings, lists, texts, numbers.

    Raises:
        Exception: Of any class, where it is not YAML, or more than that.
    """
    return yaml.load(text, PlainLoader)  # noqa: S506 - it is a safe loader


def plain_value(text: str) -> Any:
    """A recorded parameter: a number, truth value, list or text."""
    try:
        return plain_yaml(text)
    except Exception:  # whatever the parser raises
        return text


def _refuse_deeper(depth: int) -> None:
    if depth > DEEPEST:
        raise RecursionError


class BrokenFile(HydraException):
    """A config file that no command can use."""

    def __init__(self, file: Path, what: str) -> None:
        self.problem = Problem(str(file), what)
        super().__init__(str(self.problem))


def load(file: Path, header_of: Callable[[str], dict[str, str | None]]) -> tuple[Container, dict[str, str | None]]:
    """Load a config file.

    Args:
        file: The file.
        header_of: Hydra's reader of the comments that a file begins with, such as ``# @package _global_``.

    Returns:
        The config and its header.

    Raises:
        BrokenFile: It cannot be used.
    """
    if what := _trouble(file):
        raise BrokenFile(file, what)
    try:
        return OmegaConf.load(file), header_of(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BrokenFile(file, first_lines(error)) from error


def lacks_defaults(folder: Path, config_name: str) -> Iterator[Problem]:
    """Find a main config that would replace ours without choosing a file of any group."""
    file = folder / f"{config_name}.yaml"
    if file.is_file() and not _trouble(file) and "defaults" not in OmegaConf.load(file):
        yield Problem(
            str(file),
            f"replaces our {file.name}, but has no list of defaults; put what differs from ours into "
            f"{folder / 'experiment' / 'NAME.yaml'}, below a first line '# @package _global_', and choose it",
            "experiment=NAME",
        )


@cache  # a sweep reads a file many times
def _trouble(file: Path) -> str:
    """Why a file cannot be used; empty if it can."""
    try:
        with file.open(encoding="utf-8") as stream:  # not its text: the parser's errors name the stream's file
            root = yaml.compose(stream, ShallowLoader)
        if isinstance(root, yaml.ScalarNode):
            raise OSError  # OmegaConf's, about the type; it takes a text for a key
        values = _expanded(root)
        if values > LARGEST:
            return f"holds {values:.2g} values, as its aliases (*name) stand for each other, expected at most {LARGEST}"
        loaded = OmegaConf.load(file)
        if not isinstance(loaded, DictConfig):
            return "is a list, expected a mapping of keys to values"
        plain = cast(dict[Any, Any], OmegaConf.to_container(loaded))
        for path in beyond_64_bits(plain):
            return f"{dotted(path)} holds {BEYOND_64_BITS}"
        strange = [f"has the key {key!r}, expected names of settings" for key in plain if not isinstance(key, str)]
        return strange[0] if strange else ""
    except Exception as error:
        return _reason(error)


def _expanded(node: yaml.Node | None, known: dict[int, int] | None = None) -> int:
    """Count the values of a file with each alias replaced by what it stands for; nothing is built.

    Raises:
        RecursionError: An alias stands for something that contains it.
    """
    known = {} if known is None else known
    if not isinstance(node, yaml.CollectionNode):
        return 1
    if id(node) not in known:
        known[id(node)] = 0
        inner = [part for entry in node.value for part in (entry if isinstance(entry, tuple) else (entry,))]
        known[id(node)] = 1 + sum(_expanded(part, known) for part in inner)
    if known[id(node)] == 0:
        raise RecursionError
    return known[id(node)]


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"is not text in UTF-8: byte {error.object[error.start]:#04x}"
    if isinstance(error, RecursionError):
        return f"is nested more than {DEEPEST} levels deep, or contains itself"
    if isinstance(error, OSError):  # without a number it is OmegaConf's, about the type
        return error.strerror or "is a single value, expected a mapping of keys to values"
    return first_lines(error)
