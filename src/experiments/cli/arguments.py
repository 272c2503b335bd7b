"""What was typed: the words of a command, read as Hydra does."""

import os
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from experiments.config import Problem, Refused
from experiments.config.files import lacks_defaults
from experiments.config.problems import quoted, shown

# Hydra's options: those without a value, and those with one.
FLAGS = (
    ("--help", "-h"), ("--hydra-help",), ("--version",), ("--shell-completion", "-sc"),
    ("--multirun", "-m"), ("--run", "-r"), ("--resolve",),
)  # fmt: skip
SETTINGS = (
    ("--cfg", "-c"), ("--package", "-p"), ("--config-name", "-cn"), ("--config-path", "-cp"), ("--experimental-rerun",),
)  # fmt: skip
# Commands whose runs are recorded already.
WITHOUT_PRESETS = ("compare", "predict", "promote", "reproduce", "sync")


def read(argv: Sequence[str]) -> Namespace:
    """Read Hydra's options and the overrides; ``--config-dir`` may come several times.

    Returns:
        Beside the options, `unknown`: those that Hydra does not have, each with the word after it; and `informs`:
        whether Hydra is asked to show something, rather than to start the command.
    """
    parser = ArgumentParser(add_help=False)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--config-dir", "-cd", action="append", default=[])
    parser.add_argument("--info", "-i", nargs="?", const="all")
    for names in FLAGS:
        parser.add_argument(*names, action="store_true")
    for names in SETTINGS:
        parser.add_argument(*names)
    arguments, unknown = parser.parse_known_intermixed_args(list(argv))
    following = dict(zip(argv, [*argv[1:], ""], strict=False))
    arguments.unknown = [(word, following[word]) for word in unknown if word.startswith("-")]
    shown = (arguments.help, arguments.hydra_help, arguments.cfg, arguments.info)
    arguments.informs = any((*shown, arguments.version, arguments.shell_completion))
    return arguments


def with_key(argv: Sequence[str], key: str) -> list[str]:
    """Put words without a key into the list that they are values of."""
    words = [word for word in argv if key and word[:1] not in ("-", "") and "=" not in word]
    return [word for word in argv if word not in words] + ([f"{key}={shown(words)}"] if words else [])


def config_folders(arguments: Namespace, config_name: str) -> list[str]:
    """The user's config folders, whose files count before ours; of several, the last counts first.

    Raises:
        Refused: One cannot be used, or an option is one that no command has.
    """
    folders = [Path(folder).absolute() for folder in arguments.config_dir]
    problems = [
        Problem("--config-dir", f"there is no folder {typed}")
        for typed, folder in zip(arguments.config_dir, folders, strict=True)
        if not os.path.isdir(folder)
    ]
    if arguments.experimental_rerun is not None:
        what = "is not supported, as it would run code from that file"
        problems.append(Problem("--experimental-rerun", f"{what}; python -m experiments.reproduce repeats a run"))
    for option, following in arguments.unknown:
        key, equals, value = option.lstrip("-").partition("=")
        typed = value if equals else following
        remedy = quoted(f"{key}={typed}") if option.startswith("--") and typed and "=" not in typed else ""
        problems.append(Problem(option, "there is no such option; settings are written KEY=VALUE", remedy))
    for word in arguments.overrides if config_name in WITHOUT_PRESETS else ():
        if word.startswith("experiment="):
            what = "is a preset of experiments.run; the runs of an MLflow experiment are those of tracking.experiment"
            problems.append(Problem("experiment", what, quoted(f"tracking.{word}")))
    if arguments.config_path is not None:
        what = "is not supported; --config-dir adds a folder of your own to those of the project"
        problems.append(Problem("--config-path", what))
    if any(word.lstrip("+~").startswith("hydra.searchpath") for word in arguments.overrides):
        problems.append(
            Problem("hydra.searchpath", "is not supported; --config-dir adds a folder, several times if need be")
        )
    if arguments.config_name is None:
        found = [folder for folder in folders if os.path.isdir(folder)]
        problems += [problem for folder in found for problem in lacks_defaults(folder, config_name)]
    if problems:
        raise Refused(problems)
    return [str(folder) for folder in reversed(folders)]
