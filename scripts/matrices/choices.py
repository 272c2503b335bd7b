"""Every choice of every group, what each means in Keras's own words, and rows in which each pair of choices occurs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import yaml

CONF = Path(__file__).resolve().parents[2] / "conf"
EPOCHS = 3


@dataclass(frozen=True)
class Choice:
    """A choice of one axis.

    Attributes:
        name: For people.
        overrides: Of the command line.
        keras: What it means there: the loss's or metrics' classes with their arguments.
    """

    name: str
    overrides: Sequence[str] = ()
    keras: Mapping[str, Any] = field(default_factory=dict)

    def __hash__(self) -> int:
        return hash(self.name)


class Row(NamedTuple):
    """One run: a choice of each axis."""

    optimizer: Choice
    loss: Choice
    schedule: Choice
    metrics: Choice
    callbacks: Choice
    model: Choice
    averaging: Choice
    precision: Choice
    xla: Choice
    validation: Choice
    batch_size: Choice
    steps: Choice
    seed: Choice

    @property
    def overrides(self) -> list[str]:
        """Of the command line."""
        return [override for choice in self for override in choice.overrides]

    def __str__(self) -> str:
        return " ".join(f"{axis}={choice.name}" for axis, choice in zip(self._fields, self, strict=True))


def _files(group: str) -> list[Choice]:
    return [Choice(file.stem, [f"{group}={file.stem}"]) for file in sorted((CONF / group).glob("*.yaml"))]


def _optimizers() -> list[Choice]:
    # With Keras's epsilon_1 of 1e-30, Adafactor's weights become NaN where a pixel is always 0: float32 has no 1e-45.
    more = {"adafactor": ["optimizer.epsilon_1=1e-20"]}
    return [Choice(file.name, [*file.overrides, *more.get(file.name, [])]) for file in _files("optimizer")]


def _losses() -> list[Choice]:
    """Each loss as its file has it, and the arguments that change what is measured."""
    found = []
    for file in sorted((CONF / "loss").glob("*.yaml")):
        section = yaml.safe_load(file.read_text())
        keras = {"name": section["name"], "labels": section["labels"], "outputs": section["output_activation"]}
        found.append(Choice(file.stem, [f"loss={file.stem}"], keras | {"arguments": {}}))
        if "from_logits" in section:
            logits = {**keras, "outputs": "linear", "arguments": {"from_logits": True}}
            words = [f"loss={file.stem}", "loss.from_logits=true", "loss.output_activation=linear"]
            found.append(Choice(f"{file.stem} of logits", words, logits))
        if "label_smoothing" in section:
            smooth = {**keras, "arguments": {"label_smoothing": 0.1}}
            words = [f"loss={file.stem}", "loss.label_smoothing=0.1"]
            found.append(Choice(f"{file.stem} smoothed", words, smooth))
    return found


def _callbacks() -> list[Choice]:
    alone = [Choice(file.stem, [f"callbacks={file.stem}"]) for file in sorted((CONF / "callbacks").glob("*.yaml"))]
    together = [
        "early_stopping,best_weights,csv_log",
        "early_stopping,swap_ema_weights",
        "csv_log,reduce_lr_on_plateau,terminate_on_nan",
    ]
    return [Choice("none"), *alone, *(Choice(names, [f"callbacks=[{names}]"]) for names in together)]


METRICS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "accuracy": {"accuracy": {}},
    "auc": {"accuracy": {}, "auc": {}},
    "precision and recall": {"accuracy": {}, "precision": {}, "recall": {}},
    "f1": {"f1_score": {}, "accuracy": {}},
    "top 3": {"accuracy": {}, "top_k_categorical_accuracy": {"k": 3}},
    "sparse top 3": {"accuracy": {}, "sparse_top_k_categorical_accuracy": {"k": 3}},
    "errors": {"accuracy": {}, "mean_squared_error": {}, "MeanAbsoluteError": {}},
    "crossentropy": {"accuracy": {}, "categorical_crossentropy": {}},
    "sparse crossentropy": {"accuracy": {}, "SparseCategoricalCrossentropy": {}},
}
NEED_PROBABILITIES = {"auc", "precision and recall", "crossentropy", "sparse crossentropy"}
# Outputs that are no probabilities, unless the loss takes them for logits.
MARGINS = {"linear", "tanh"}


def _metrics() -> list[Choice]:
    def written(name: str, arguments: Mapping[str, Any]) -> str:
        inner = ",".join(f"{key}:{value}" for key, value in arguments.items())
        return f"{{{name}:{{{inner}}}}}" if inner else name

    return [
        Choice(name, [f"metrics=[{','.join(written(*item) for item in metrics.items())}]"], metrics)
        for name, metrics in METRICS.items()
    ]


AXES: Mapping[str, Sequence[Choice]] = {
    "optimizer": _optimizers(),
    "loss": _losses(),
    "schedule": _files("optimizer/schedule"),
    "metrics": _metrics(),
    "callbacks": _callbacks(),
    "model": [
        Choice("mlp", ["model.layer_sizes=[16]"], {"images": "small"}),
        Choice("mlp with dropout", ["model.layer_sizes=[16,16]", "model.dropout=0.2"], {"images": "small"}),
        Choice("mlp, normalised", ["model.layer_sizes=[16]", "model.batch_normalization=true"], {"images": "small"}),
        Choice("mlp with l2", ["model.layer_sizes=[16]", "model.regularizer=l2"], {"images": "small"}),
        Choice("sequential", ["model=sequential"], {"images": "small"}),
        Choice("convnet", ["model=convnet", "model.filters=[4,8]"], {"images": "large"}),
        Choice("lenet5", ["model=lenet5"], {"images": "large"}),
    ],
    "averaging": [
        Choice("none"),
        Choice("averaged", ["optimizer.use_ema=true", "optimizer.ema_momentum=0.9"]),
        Choice("overwritten", ["optimizer.use_ema=true", "optimizer.ema_overwrite_frequency=4"]),
    ],
    "precision": [Choice(name, [f"precision={name}"]) for name in ("float32", "mixed_float16", "mixed_bfloat16")],
    "xla": [Choice(name, [f"runtime.xla={name}"]) for name in ("auto", "true", "false")],
    "validation": [
        Choice("none"),
        Choice("a fifth", ["data.validation_size=0.2"]),
        Choice("50", ["data.validation_size=50"]),
    ],
    "batch_size": [Choice(str(size), [f"batch_size={size}"]) for size in (32, 50, 240)],
    "steps": [
        Choice("auto"),
        Choice("one at a time", ["runtime.steps_per_execution=1"]),
        Choice("accumulated", ["optimizer.gradient_accumulation_steps=2"]),
        Choice("clipped", ["optimizer.clipnorm=1.0"]),
    ],
    "seed": [Choice(str(seed), [f"seed={seed}"]) for seed in (0, 1, 4_294_967_295)],
}


def fits(choices: Mapping[str, Choice]) -> bool:
    """Whether choices may be made together, as the documentation has it; some axes may be missing."""
    names = {axis: choice.name for axis, choice in choices.items()}
    callbacks, loss = names.get("callbacks", "none"), choices.get("loss")
    watching = any(name in callbacks for name in ("early_stopping", "reduce_lr", "best_weights"))
    if watching and names.get("validation") == "none":
        return False
    if "reduce_lr" in callbacks and names.get("schedule", "constant") != "constant":
        return False
    if "swap_ema" in callbacks and names.get("averaging") == "none":
        return False
    return not (
        loss
        and names.get("metrics") in NEED_PROBABILITIES
        and loss.keras["outputs"] in MARGINS
        and not loss.keras["arguments"].get("from_logits")
    )


Pair = frozenset[tuple[str, str]]
"""Two choices, each with its axis."""


def pairs() -> dict[Pair, None]:
    """All pairs of choices that may be made together, in a fixed order."""
    return {
        frozenset({(one, first.name), (other, second.name)}): None
        for one, other in combinations(AXES, 2)
        for first in AXES[one]
        for second in AXES[other]
        if fits({one: first, other: second})
    }


def pairs_of(chosen: Mapping[str, Choice]) -> set[Pair]:
    """The pairs in a row, or in part of one."""
    return {frozenset(two) for two in combinations(((axis, choice.name) for axis, choice in chosen.items()), 2)}


def rows(seed: int) -> list[Row]:
    """Rows in which each pair of choices that may be made together occurs.

    Greedy (AETG; Cohen et al., 1997): each row starts with a pair that is missing, and takes for each further axis the
    choice that adds the most missing pairs.

    Args:
        seed: Another one gives other rows.
    """
    random, missing, found = Random(seed), pairs(), list[Row]()  # noqa: S311 - for no secret
    while missing:
        chosen = {axis: _choice(axis, name) for axis, name in sorted(next(iter(missing)))}
        for axis in random.sample([axis for axis in AXES if axis not in chosen], len(AXES) - 2):
            possible = [choice for choice in AXES[axis] if fits({**chosen, axis: choice})]
            random.shuffle(possible)
            added = {choice: len(missing.keys() & pairs_of({**chosen, axis: choice})) for choice in possible}
            chosen[axis] = max(possible, key=added.__getitem__)
        found.append(Row(**chosen))
        for pair in pairs_of(chosen):
            missing.pop(pair, None)
    return found


def _choice(axis: str, name: str) -> Choice:
    return next(choice for choice in AXES[axis] if choice.name == name)
