"""The best config of a search as a file that ``experiment=`` accepts."""

from collections.abc import Sequence
from typing import Any

import yaml
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser

from experiments.config.keys import is_group


def preset(overrides: Sequence[str], loader: ConfigLoader, head: str) -> str:
    """Write overrides as a preset.

    Args:
        overrides: Of a run.
        loader: Hydra's, which knows the groups.
        head: What the first line says of it.
    """
    groups, keys = list[dict[str, Any]](), dict[str, Any]()
    for item in OverridesParser.create(loader).parse_overrides(list(overrides)):
        name = item.key_or_group
        if name.startswith(("hydra", "tracking", "resume", "trust")) or item.is_delete():
            continue
        if is_group(loader, name):
            groups.append({f"override /{name}": item.value()})
            continue
        *sections, last = name.split(".")
        place = keys
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = item.value()
    content = {"defaults": groups, **keys} if groups else keys
    return f"# @package _global_\n# {head}\n{yaml.safe_dump(content, sort_keys=False)}"
