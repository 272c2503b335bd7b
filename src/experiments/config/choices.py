"""What ``runtime: auto`` becomes. It follows from the config and the number of images alone, so that runs repeat."""

import math
from dataclasses import dataclass
from typing import Any

from experiments.config.measures import plain
from experiments.config.schema import Config, Mlp, Runtime, Sequential

# XLA made training steps of networks with only these layers faster on CPUs; after so many steps, the gain exceeds
# the compile time. It compiles random numbers (dropout, noise) and convolutions badly there (docs/performance.md).
FASTER_WITH_XLA = frozenset({"activation", "batchnormalization", "dense", "flatten", "relu", "softmax"})
XLA_PAYS_FROM_STEPS = 1500
# Steps per call into TensorFlow: enough to make the cost of a call negligible, few enough for Ctrl-C to respond.
STEPS_PER_EXECUTION = 64
EVALUATION_BATCH_SIZE = 1000


@dataclass(frozen=True)
class Choices:
    """The settings of ``runtime`` that a run uses."""

    threads: int
    xla: bool
    steps_per_execution: int
    evaluation_batch_size: int


def choose(config: Config, images: int, threads: int, gpus: bool) -> Choices:
    """Settle what the config leaves open.

    Args:
        config: The config.
        images: Number of images to train on.
        threads: Number of processor threads.
        gpus: Whether the run computes on a GPU.
    """
    runtime, steps_per_epoch = config.runtime, math.ceil(images / config.batch_size)
    pays = (
        not gpus and layers(config.model) <= FASTER_WITH_XLA and steps_per_epoch * config.epochs >= XLA_PAYS_FROM_STEPS
    )
    return Choices(
        threads=threads,
        xla=_or(runtime.xla, pays),
        steps_per_execution=min(_or(runtime.steps_per_execution, STEPS_PER_EXECUTION), steps_per_epoch),
        evaluation_batch_size=evaluation_batch_size(runtime),
    )


def evaluation_batch_size(runtime: Runtime) -> int:
    """Images at a time when a model is validated and tested."""
    return int(_or(runtime.evaluation_batch_size, EVALUATION_BATCH_SIZE))


def layers(model: Mlp | Sequential) -> set[str]:
    """The classes of a network's layers, without case and underscores."""
    if isinstance(model, Sequential):
        return {plain(spec if isinstance(spec, str) else next(iter(spec))) for spec in model.layers}
    found = {"flatten", "dense"}
    if model.batch_normalization:
        found |= {"batchnormalization", "activation"}
    return found | {"dropout"} if model.dropout else found


def _or(setting: Any, choice: Any) -> Any:
    return choice if setting == "auto" else setting
