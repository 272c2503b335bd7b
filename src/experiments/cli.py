"""What all commands share: Hydra's start, refusals, signals and the exit status."""

import functools
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from experiments import data, tracking
from experiments.config import Config, Problem, Refused, RunFailed, check, suggest

HERE = Path(__file__).resolve().parent
CONF = HERE / "conf" if (HERE / "conf").is_dir() else HERE.parents[1] / "conf"  # a wheel, or a checkout
DONE, FAILED, REFUSED, INTERRUPTED = 0, 1, 2, 130


def command(config_name: str) -> Callable[[Callable[[DictConfig], Any]], Callable[[], NoReturn]]:
    """Make a function of a composed config a command, with the exit statuses that the README promises."""

    def decorate(task: Callable[[DictConfig], Any]) -> Callable[[], NoReturn]:
        @functools.wraps(task)
        def guarded(config: DictConfig) -> Any:
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                return task(config)  # the sweep goes on; Hydra raises the first failure at its end
            with exit_status(config_name):
                return task(config)

        @functools.wraps(task)
        def main() -> NoReturn:
            os.environ["HYDRA_FULL_ERROR"] = "1"  # have Hydra raise what it would print
            signal.signal(signal.SIGTERM, _interrupt)
            with exit_status(config_name):
                hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(guarded)()
            _leave(DONE)

        return main

    return decorate


@contextmanager
def exit_status(config_name: str) -> Iterator[None]:
    """Turn what a command raises into a message on stderr and an exit status."""
    try:
        yield
    except Refused as refused:
        _stop(str(refused), REFUSED)
    except RunFailed as failed:
        _stop(f"error: {failed}", FAILED)
    except (HydraException, OmegaConfBaseException) as error:
        _stop("\n".join(map(str, explain(error, config_name, sys.argv[1:]))), REFUSED)
    except KeyboardInterrupt:
        _stop("interrupted", INTERRUPTED)


def _stop(message: str, status: int) -> NoReturn:
    sys.stdout.flush()
    print(tracking.redact(message), file=sys.stderr)
    sys.exit(status)


def _leave(status: int) -> NoReturn:
    """End the process without taking TensorFlow apart, which takes a second or more."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _interrupt(signum: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def check_run(config: DictConfig, defaults: Callable[[], DictConfig] | None = None) -> Config:
    """Check all that can be checked before TensorFlow is imported: the config, the data's place, the store.

    Raises:
        Refused: With all problems, in the order of the config's keys.
    """
    try:
        checked = check(config, Config)
    except Refused:
        if defaults is None:
            raise
        return check(config, Config, OmegaConf.to_container(defaults(), resolve=False))
    found = tracking.problems(checked.tracking)
    try:
        data.locate(checked.data)
    except Refused as refused:
        found = [*refused.problems, *found]
    if found:
        raise Refused(found)
    return checked


class CheckBeforeRun(Callback):  # type: ignore[misc]
    """Hydra's callback that refuses a run before Hydra makes its output folder."""

    def on_run_start(self, config: DictConfig, config_name: str | None = None, **kwargs: Any) -> None:
        """Leave with exit status 2 if the run cannot start."""
        with exit_status(config_name or "config"):
            check_run(config, functools.partial(_defaults, config, config_name))


def _defaults(config: DictConfig, config_name: str | None) -> DictConfig:
    """The same config groups with none of the user's values: where remedies come from."""
    choices = OmegaConf.to_container(config.hydra.runtime.choices)
    groups = [f"{group}={_choice(choice)}" for group, choice in choices.items() if not group.startswith("hydra/")]
    loader = GlobalHydra.instance().config_loader()
    return loader.load_configuration(config_name, overrides=groups, run_mode=RunMode.RUN)


def _choice(choice: Any) -> str:
    return f"[{','.join(choice)}]" if isinstance(choice, list) else "null" if choice is None else str(choice)


def explain(error: Exception, config_name: str, argv: list[str]) -> list[Problem]:
    """Find all overrides that Hydra would complain about; it stops at the first one."""
    arguments, _ = get_args_parser().parse_known_args(argv)
    search_path = [f"hydra.searchpath=[file://{Path(arguments.config_dir).absolute()}]"] if arguments.config_dir else []
    found: list[Problem] = []
    parsed: list[Override] = []
    for text in arguments.overrides:
        try:
            parsed.append(OverridesParser.create().parse_override(text))
        except OverrideParseException as unreadable:
            reason = str(unreadable).splitlines()[0]
            found.append(Problem(text, f"is not an override ({reason}), expected KEY=VALUE; quote it for the shell: 'KEY=[A,B]'"))
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            config_name = arguments.config_name or config_name
            groups: list[str] = []
            repository = GlobalHydra.instance().config_loader().repository
            for override in sorted(parsed, key=lambda item: not repository.group_exists(item.key_or_group)):
                is_group = repository.group_exists(override.key_or_group)
                try:
                    composed = hydra.compose(config_name, [*search_path, *groups])
                    hydra.compose(config_name, [*search_path, *groups, override.input_line])
                    groups += [override.input_line] if is_group else []
                except (HydraException, OmegaConfBaseException) as own:
                    found.append(_override_problem(override, own, composed))
    except (HydraException, OmegaConfBaseException) as other:
        error = other
    return found or [Problem("config", " ".join(str(error).split()))]


def _override_problem(override: Override, error: Exception, composed: DictConfig) -> Problem:
    key, line = override.key_or_group, override.input_line
    given = line.partition("=")[2]
    if isinstance(error, MissingConfigException) and error.options:
        hint = suggest(given, error.options)
        best = hint.split("'")[1] if hint.startswith("did") else error.options[0]
        return Problem(key, f"there is no {given!r}; {hint}", f"{key}={best}")
    if override.is_sweep_override():
        return Problem(line, "gives several values, which is a sweep", f"-m {line}")
    parent, _, last = key.rpartition(".")
    section = OmegaConf.select(composed, parent) if parent else composed
    if isinstance(section, DictConfig) and last not in section:
        hint = suggest(last, [str(name) for name in section if name != "hydra"])
        best = f"{parent}.{hint.split(chr(39))[1]}".lstrip(".") if hint.startswith("did") else ""
        return Problem(key, f"there is no such key; {hint}", f"{best}={given}" if best else "")
    if parent and section is None:
        nearest = suggest(parent.partition(".")[0], [str(name) for name in composed])
        return Problem(key, f"there is no such key; {nearest}")
    return Problem(line, " ".join(str(error).split()))
