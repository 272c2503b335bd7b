"""What a module of this folder has, and how it is found."""

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Arrays = Mapping[str, NDArray[Any]]
SAME_LENGTH = "if there are too many at the end: n = min(len(X), len(Y)); X, Y = X[:n], Y[:n]"


class Wrong(NamedTuple):
    """What is wrong with an array of a data set, and what to do about it before it is saved.

    In `mend`, X and Y stand for the arrays of the part, such as x_train.
    """

    what: str
    mend: str = ""


class Judged(NamedTuple):
    """What a model made of a test set of n inputs. All of it is kept, for reports that are made later.

    Attributes:
        kept: Arrays by name.
        each: The same, of one entry an input (n, ...).
        worst: Numbers of the inputs for which the model does worst, worst first; the first of them are kept.
        worst_each: Arrays of one entry an input, which are kept for the worst only.
    """

    kept: dict[str, NDArray[Any]]
    each: dict[str, NDArray[Any]]
    worst: NDArray[np.intp]
    worst_each: dict[str, NDArray[Any]]


class Report(Protocol):
    """Measures of a finished model, and what it made of the test set."""

    kept: Arrays
    """What it was made of, see `measuring.keep`."""

    measures: Mapping[str, float]
    """``test_loss``, ``test_accuracy`` and so on; with a validation set, also ``final_val_loss`` and so on."""

    def as_json(self) -> dict[str, Any]:
        """What ``report.json`` holds."""

    def draw(self) -> "dict[str, Figure]":
        """Its pictures, by name."""


class Task(Protocol):
    """What a module of this folder has. Targets are (n,), outputs those of the network: (n, `outputs`)."""

    def problems(self, targets: NDArray[Any], inputs: int | None, training: int) -> Iterator[Wrong]:
        """Say what is wrong with targets.

        Args:
            targets: As they were saved.
            inputs: How many there should be; None: unknown.
            training: Number of inputs to train on.
        """

    def disagreements(self, train: NDArray[Any], test: NDArray[Any]) -> dict[str, list[Wrong]]:
        """What is wrong with targets that are right each for itself, by the names of the arrays."""

    def clean(self, targets: NDArray[Any]) -> NDArray[Any]:
        """Targets of the type that is kept."""

    def outputs(self, train: NDArray[Any]) -> int:
        """How many outputs the network needs."""

    def strata(self, targets: NDArray[Any]) -> NDArray[np.int64]:
        """The stratum of each target (n,), numbered from 0; a part of the data set keeps the shares of the strata."""

    def warnings(self, train: NDArray[Any], outputs: int) -> Iterator[str]:
        """What is unusual about targets."""

    def describe(self, train: NDArray[Any], outputs: int) -> str:
        """Say in a few words what the targets are."""

    def encode(self, targets: NDArray[Any], labels: str, outputs: int) -> NDArray[Any]:
        """Targets as a loss with ``loss.labels`` reads them."""

    def examples(self, outputs: int) -> tuple[NDArray[Any], NDArray[np.float32]]:
        """A few made-up targets, and outputs, on which losses and metrics are tried."""

    def judge(self, targets: NDArray[Any], outputs: NDArray[np.float32], activation: str) -> Judged:
        """Compare outputs for a test set with the targets.

        Args:
            targets: (n,).
            outputs: (n, `outputs`).
            activation: What the outputs come from.
        """

    def report(self, measures: Mapping[str, float], kept: Arrays) -> Report:
        """Make a report of measures and what was kept."""

    def predictions(self, outputs: NDArray[np.floating], activation: str) -> NDArray[np.floating]:
        """What users get for outputs: probabilities (n, classes), or numbers (n,)."""

    def guesses(self, predictions: NDArray[np.floating], names: Sequence[str]) -> list[dict[str, Any]]:
        """Predictions as plain data, one entry an input."""

    def table(self, guesses: Sequence[Mapping[str, Any]]) -> list[str]:
        """Guesses as lines of a table; where they have a ``truth``, with it."""


def of(name: str) -> Task:
    """The task of a name."""
    return cast(Task, importlib.import_module(f"experiments.task.{name}"))


def names() -> list[str]:
    """All tasks."""
    modules = pkgutil.iter_modules([str(Path(__file__).parent)])
    return [module.name for module in modules if module.name not in ("measuring", "pictures", "protocol")]


Measure = Callable[[Any], tuple[dict[str, float], NDArray[np.float32]]]
