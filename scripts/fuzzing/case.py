"""A case: one command, with the files, the store and the surroundings that it meets. Plain data, so it can be kept."""

import json
import shlex
from dataclasses import asdict, dataclass, field
from itertools import chain
from typing import Any

COMMANDS = ("run", "predict", "compare", "reproduce", "promote")
# What is known only when a case is run: its folder, and the ids of the prepared runs.
FOLDER, RUN, SWEEP = "<FOLDER>", "<RUN>", "<SWEEP>"


@dataclass(frozen=True)
class Case:
    """One command and what it meets.

    Attributes:
        command: The module: ``run``, ``predict`` and so on.
        arguments: Of the command line; `FOLDER`, `RUN` and `SWEEP` stand for what is known later.
        files: What is put into the working folder, in order: path, maker (see `files.py`), its arguments.
        environment: Variables that are set; None: unset.
        folder: Name of the working folder.
        closed: Numbers of descriptors that are closed.
        store: Whether a copy of the prepared records is there.
        fresh: Whether a new interpreter runs it, in place of a fork.
        wrong: Of a case that is kept: what was wrong.
    """

    command: str
    arguments: list[str] = field(default_factory=list)
    files: list[list[Any]] = field(default_factory=list)
    environment: dict[str, str | None] = field(default_factory=dict)
    folder: str = "work"
    closed: list[int] = field(default_factory=list)
    store: bool = False
    fresh: bool = False
    wrong: str = ""

    @property
    def is_sweep(self) -> bool:
        """Whether the command is given as a sweep."""
        return "-m" in self.arguments or "--multirun" in self.arguments or "hydra.mode=MULTIRUN" in self.arguments

    def mentions(self, *words: str) -> bool:
        """Whether one of the words stands in the command line or in a file's recipe."""
        text = json.dumps([self.arguments, self.files, self.environment])
        return any(word in text for word in words)

    def as_json(self) -> str:
        """All that differs from the defaults, for the corpus."""
        defaults = asdict(Case(""))
        return json.dumps({key: value for key, value in asdict(self).items() if value != defaults[key]})

    def __str__(self) -> str:
        """The command as a shell has it, but for odd characters, which are escaped."""
        variables = [
            [f"{key}={value}"] if value is not None else ["-u", key] for key, value in self.environment.items()
        ]
        start = [*(["env", *chain(*variables)] if variables else []), "python", "-m", f"experiments.{self.command}"]
        line = " ".join(
            [shlex.quote(word) for word in [*start, *self.arguments]] + [f"{number}>&-" for number in self.closed]
        )
        return "".join(sign if " " <= sign <= "~" else ascii(sign)[1:-1] for sign in line)

    @classmethod
    def from_json(cls, text: str) -> "Case":
        """A case that was kept."""
        return cls(**json.loads(text))
