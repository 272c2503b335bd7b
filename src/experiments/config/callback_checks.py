"""Callbacks of a config: those that cannot take part, what they watch, and the files that they write."""

import importlib.util
import re
import string
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from experiments.config.measures import mode_of, plain
from experiments.config.problems import NAME_LENGTH, Problem, assign, closest, suggest
from experiments.config.schema import Callback, Config

# Arguments of Keras callbacks that name a file or a folder.
FILE_ARGUMENTS = frozenset({"filepath", "filename", "log_dir", "backup_dir", "directory"})
# What the run itself writes in its output folder.
RESERVED = frozenset({"checkpoints", "lock", "model.keras", "run.log"})
# How a number in a file's name may be written: few digits, as a width of a billion would take that many bytes.
SHORT = re.compile(r"[+ -]?[0-9]{0,3}(\.[0-9]{1,2})?[defg]?")
# Keras callbacks that no run can have, by their plain names, and why.
UNFIT = {
    "backupandrestore": "is not needed: every recorded run keeps checkpoints, and resume=true goes on from them",
    "callbacklist": "is a list of callbacks; name each of them by itself",
    "history": "is part of every run already",
    "learningratescheduler": "calls a Python function, which a config cannot hold; choose optimizer/schedule=",
    "orbaxcheckpoint": "saves a model for JAX on many machines, and cannot go on with an interrupted run; "
    "choose callbacks=best_weights instead",
    "progbarlogger": "is part of every run already, which shows its progress",
}
# Keras callbacks that watch `val_loss` where no metric is named: always, or only with `save_best_only`.
WATCHERS = {"earlystopping": True, "reducelronplateau": True, "modelcheckpoint": False}


def callback_problems(config: Config, metrics_known: bool = True) -> Iterator[Problem]:
    """List what is wrong with the callbacks of a config, and with what they watch if all metrics are known."""
    files: dict[PurePosixPath, str] = {}
    for key, callback in config.callbacks.items():
        where, kind = f"callbacks.{key}", plain(callback.name)
        if kind in UNFIT:
            yield Problem(where, f"{callback.name} {UNFIT[kind]}", f"~{where}")
        elif kind == "tensorboard" and importlib.util.find_spec("tensorboard") is None:
            what = (
                f"{callback.name} needs the package tensorboard, which is not installed; MLflow shows the same curves"
            )
            yield Problem(where, what, f"~{where}")
        else:
            yield from _watched(config, where, kind, callback.arguments()) if metrics_known else ()
            yield from _files(where, callback, files)
            yield from _settings(config, where, kind, callback.arguments())


def watched_metric(config: Config, where: str, metric: str) -> Iterator[Problem]:
    """Say what is wrong with a metric that `where` watches."""
    names = config.metric_names
    base = metric.removeprefix("val_").removeprefix("test_" if where == "objective" else "")
    hold_out = "data.validation_size=0.1"
    if base not in names:
        meant, near = meant_metric(config, where, metric)
        hint = f"did you mean '{meant}'?" if near else suggest("", [*names, *(f"val_{name}" for name in names)])
        remedy = assign(where, meant)
        if meant.startswith("val_") and not config.validates:
            remedy = f"{hold_out} {remedy}"
        yield Problem(where, f"got {metric or 'an empty text'}, which is not recorded; {hint}", remedy)
    elif metric.startswith("val_") and not config.validates:
        yield Problem(where, f"got {metric}, but no validation set is held out", hold_out)


def meant_metric(config: Config, where: str, metric: str) -> tuple[str, bool]:
    """Guess the recorded metric that was meant by a name that is not recorded.

    Returns:
        The metric, that of the validation set rather than that of training; and whether its name is near.
    """
    names = config.metric_names
    parts = ("", "val_", "test_") if where == "objective" else ("", "val_")
    near = closest(metric, [f"{part}{name}" for part in parts for name in names])
    meant = near or names[-1]
    if meant in names and (config.validates or where == "objective"):
        meant = f"val_{meant}"
    return meant, near is not None


def _watched(config: Config, where: str, kind: str, arguments: dict[str, Any]) -> Iterator[Problem]:
    watches = WATCHERS.get(kind)
    active = watches or (watches is False and arguments.get("save_best_only"))
    metric = arguments.get("monitor", "val_loss" if active else None)
    if not isinstance(metric, str):
        if "monitor" in arguments:
            yield Problem(f"{where}.monitor", f"got {metric}, expected the name of a metric", f"{where}.monitor=loss")
        return
    problems = list(watched_metric(config, f"{where}.monitor", metric))
    yield from problems
    if not problems and arguments.get("mode", "auto") == "auto" and mode_of(metric, config.metrics) is None:
        what = f"got auto, but {metric} is a metric of your own: say whether a lower (min) or a higher value is better"
        yield Problem(f"{where}.mode", what, assign(f"{where}.mode", "max"))


def _files(where: str, callback: Callback, files: dict[PurePosixPath, str]) -> Iterator[Problem]:
    """Find names that are no file in the run's output folder, or that an earlier callback has taken (`files`)."""
    for name in sorted(FILE_ARGUMENTS & callback.arguments().keys()):
        given, key = callback.arguments()[name], f"{where}.{name}"
        example = "best.weights.h5" if name == "filepath" else "epochs.csv" if name == "filename" else "output"
        path = PurePosixPath(given if isinstance(given, str) else "")
        if not path.name or path.name == "..":
            yield Problem(
                key, f"got {given!r}, expected the name of a file in the run's output folder", assign(key, example)
            )
        elif trouble := _too_long(path):
            yield Problem(key, f"got {given}, {trouble}", assign(key, example))
        elif path.parts[0] in RESERVED:
            yield Problem(key, f"got {given}, which the run itself writes", assign(key, example))
        elif path in files:
            yield Problem(
                key,
                f"got {given}, which {files[path]} writes already",
                assign(key, f"{path.parent / 'other_'}{path.name}"),
            )
        files.setdefault(path, key)


def _too_long(path: PurePosixPath) -> str:
    """Why a path has a name that no file system takes; empty if it has none."""
    longest = max(len(part.encode(errors="surrogatepass")) for part in ("", *path.parts))
    what = "which cannot be the name of a file: it has {} bytes, expected at most {}"
    return what.format(longest, NAME_LENGTH) if longest > NAME_LENGTH else ""


def _settings(config: Config, where: str, kind: str, arguments: dict[str, Any]) -> Iterator[Problem]:
    """Settings that Keras would stumble over after an epoch, or that exclude each other."""
    optimizer, schedule = config.optimizer, config.optimizer.schedule
    if kind == "reducelronplateau" and schedule.name != "constant":
        what = f"sets the learning rate, which the schedule {schedule.name} sets already"
        yield Problem(where, what, "optimizer/schedule=constant")
    if kind == "swapemaweights" and not optimizer.use_ema:
        yield Problem(where, "needs an optimizer that averages its weights", "optimizer.use_ema=true")
    if kind == "swapemaweights" and arguments.get("swap_on_epoch", True) is not True:
        what = (
            f"got {arguments['swap_on_epoch']}, but the weights that other callbacks save and restore "
            "have to be those that are validated and recorded: the averages"
        )
        yield Problem(f"{where}.swap_on_epoch", what, f"{where}.swap_on_epoch=true")
    if kind == "terminateonnan" and arguments.get("raise_error"):
        what = "got true, but the run fails in any case, and its message lists the likely causes"
        yield Problem(f"{where}.raise_error", what, f"{where}.raise_error=false")
    if kind == "csvlogger" and not _separates(separator := arguments.get("separator", ",")):
        yield Problem(
            f"{where}.separator", f"got {separator!r}, expected one character", assign(f"{where}.separator", ";")
        )
    if kind == "modelcheckpoint":
        yield from _checkpoint(config, where, arguments)


def _separates(separator: Any) -> bool:
    return isinstance(separator, str) and len(separator) == 1 and separator not in '"\r\n '


def _checkpoint(config: Config, where: str, arguments: dict[str, Any]) -> Iterator[Problem]:
    by_step = arguments.get("save_freq", "epoch") != "epoch"
    if by_step and arguments.get("save_best_only"):
        what = f"got {arguments['save_freq']} steps, but save_best_only compares epochs"
        yield Problem(f"{where}.save_freq", what, f"{where}.save_freq=epoch")
    names = config.metric_names
    known = {"epoch": config.epochs, **({"batch": 1} if by_step else {}), **dict.fromkeys(names, 0.5)}
    if config.validates and not by_step:
        known |= {f"val_{name}": 0.5 for name in names}
    if not isinstance(given := arguments.get("filepath"), str):
        return
    ending = ".weights.h5" if given.endswith(".weights.h5") else ".keras"
    try:
        for _, _, width, _ in string.Formatter().parse(given):
            if width and not SHORT.fullmatch(width):
                raise ValueError(f"the format {width}")
        if trouble := _too_long(PurePosixPath(given.format(**known))):
            yield Problem(f"{where}.filepath", f"got {given}, {trouble}", assign(f"{where}.filepath", f"best{ending}"))
    except (LookupError, ValueError, TypeError, AttributeError) as error:
        what = f"got {given}, in which {error} cannot be filled in; known: {', '.join(f'{{{name}}}' for name in known)}"
        yield Problem(f"{where}.filepath", what, assign(f"{where}.filepath", f"best{ending}"))
