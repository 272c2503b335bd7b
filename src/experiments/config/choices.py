"""What ``runtime: auto`` becomes. It follows from the config and the number of images alone, so that runs repeat."""

import math
from dataclasses import dataclass
from typing import Any

from experiments.config.schema import Config, Mlp

# From this many training steps on, XLA's faster steps have paid for its compilation, in a network of dense layers;
# its convolutions were four times slower on processors (docs/performance.md).
XLA_PAYS_FROM_STEPS = 1500
# Steps per call into TensorFlow: what a call costs is spread thin from here on, and Ctrl-C still answers.
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
    dense = isinstance(config.model, Mlp)
    return Choices(
        threads=threads,
        xla=_or(runtime.xla, not gpus and dense and steps_per_epoch * config.epochs >= XLA_PAYS_FROM_STEPS),
        steps_per_execution=min(_or(runtime.steps_per_execution, STEPS_PER_EXECUTION), steps_per_epoch),
        evaluation_batch_size=_or(runtime.evaluation_batch_size, EVALUATION_BATCH_SIZE),
    )


def _or(setting: Any, choice: Any) -> Any:
    return choice if setting == "auto" else setting
