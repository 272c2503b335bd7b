"""Regression: targets are numbers, and the network gives one."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from experiments.task.protocol import SAME_LENGTH, Arrays, Judged, Wrong

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Numbers = NDArray[np.float32]

LARGEST = float(np.finfo(np.float32).max)
FINITE = "leave these out: keep = np.isfinite(Y); X, Y = X[keep], Y[keep]"
CENTER = "subtract a number from all targets: Y = Y - Y.mean()"
COARSE = 1e-4  # of the largest target: if all differences are smaller, float32 has at most 3 digits of them
NUMBERS = "if they stand for numbers: Y = Y.astype(np.float32)"


def problems(targets: NDArray[Any], inputs: int | None, training: int) -> Iterator[Wrong]:
    """Say what is wrong with numbers."""
    if targets.ndim != 1:
        yield Wrong(f"got shape {targets.shape}, expected (n,): one number for each input")
    elif inputs is not None and len(targets) != inputs:
        what = f"got {len(targets)} targets for {inputs} inputs, expected one for each, in the same order"
        yield Wrong(what, SAME_LENGTH if len(targets) and inputs else "")
    if targets.ndim == 0:
        return
    if targets.dtype.kind not in "uifb":
        yield Wrong(f"got type {targets.dtype}, expected numbers", NUMBERS if targets.dtype.kind in "US" else "")
    elif targets.ndim == 1 and targets.size and not np.isfinite(targets).all():
        count = int((~np.isfinite(targets)).sum())
        yield Wrong(f"holds NaN or infinity, in {count:,} of {len(targets):,}", FINITE if count < len(targets) else "")
    elif targets.size and (largest := max(float(targets.max()), -float(targets.min()))) > LARGEST:
        yield Wrong(
            f"holds values of up to {largest:.3g}, but training is done in float32, which ends at {LARGEST:.3g}"
        )


def disagreements(train: NDArray[Any], test: NDArray[Any]) -> dict[str, list[Wrong]]:
    """There has to be something to learn, in the precision that training has."""
    cleaned = clean(train)
    if cleaned.min() < cleaned.max():
        return {}
    if train.min() == train.max():
        return {"y_train": [Wrong("holds one value only, so there is nothing to learn")]}
    return {"y_train": [Wrong("holds values that are all equal in float32, in which training is done", CENTER)]}


def clean(targets: NDArray[Any]) -> Numbers:
    """Numbers in float32."""
    return targets.astype(np.float32)


def outputs(train: NDArray[Any]) -> int:
    """One output: the number."""
    return 1


def strata(targets: NDArray[Any]) -> NDArray[np.int64]:
    """A single stratum: a part is drawn regardless of the targets."""
    return np.zeros(len(targets), np.int64)


def warnings(train: NDArray[Any], outputs: int) -> Iterator[str]:
    """Warn where float32, in which training is done, keeps little of the differences between targets."""
    spread, largest = float(np.ptp(train)), float(np.abs(train).max())
    if spread < COARSE * largest:
        few = f"targets reach {largest:.3g} and differ by {spread:.3g}, of which float32 keeps few digits"
        yield f"{few}; subtract a number"
    elif largest**2 < float(np.finfo(np.float32).tiny) or largest > LARGEST**0.5:
        yield f"targets reach {largest:.3g}, and float32 cannot hold their squares; divide them by a number"


def describe(train: NDArray[Any], outputs: int) -> str:
    """Say where the targets lie."""
    return f"targets {train.min():.4g} to {train.max():.4g}"


def encode(targets: NDArray[Any], labels: str, outputs: int) -> NDArray[Any]:
    """Numbers (n, 1), as the network gives them."""
    return targets.astype(np.float32)[:, np.newaxis]


def examples(outputs: int) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """Numbers around 1, and others."""
    random = np.random.default_rng(0)
    return random.random(8, dtype=np.float32) + 0.5, random.random((8, 1), dtype=np.float32) + 0.5


def judge(targets: NDArray[Any], outputs: NDArray[np.float32], activation: str) -> Judged:
    """Truth and prediction; the worst are furthest off."""
    guess = predictions(outputs, activation)
    worst = np.argsort(-np.abs(guess - targets), kind="stable")
    return Judged(kept={}, each={"truth": targets, "guess": guess}, worst=worst, worst_each={})


@dataclass(frozen=True)
class NumberReport:
    """Measures of a model that predicts numbers, and its predictions for the test set; see `judge`."""

    measures: Mapping[str, float]
    kept: Arrays

    @property
    def residuals(self) -> NDArray[np.float64]:
        """By how much each prediction is too large (n,)."""
        return self.kept["guess"].astype(np.float64) - self.kept["truth"]

    def as_json(self) -> dict[str, Any]:
        """Measures; the usual ones of regression, by scikit-learn; and how the residuals are spread."""
        from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

        truth, guess, residuals = self.kept["truth"], self.kept["guess"], self.residuals
        shares = (0.05, 0.25, 0.5, 0.75, 0.95)
        return {
            "measures": dict(self.measures),
            "regression": {
                "r2": float(r2_score(truth, guess)) if len(truth) > 1 else None,
                "mean_absolute_error": float(mean_absolute_error(truth, guess)),
                "root_mean_squared_error": float(root_mean_squared_error(truth, guess)),
            },
            "residuals": {
                "mean": float(residuals.mean()),
                "quantiles": {f"{share:g}": float(np.quantile(residuals, share)) for share in shares},
            },
        }

    def draw(self) -> "dict[str, Figure]":
        """Predictions against the truth, and the residuals; the worst inputs, where they are images."""
        from experiments.task import pictures  # now: matplotlib takes long to import

        truth, guess = self.kept["truth"], self.kept["guess"]
        drawn = {"parity": pictures.parity(truth, guess), "residuals": pictures.residuals(guess, self.residuals)}
        if pictures.are_images(inputs := self.kept["worst.x"]):
            worst = zip(*(self.kept[f"worst.{name}"] for name in ("index", "truth", "guess")), strict=True)
            texts = [f"#{index}   is {truth:.4g}\npredicted {guess:.4g}" for index, truth, guess in worst]
            drawn["worst_predictions"] = pictures.images(inputs, texts, "The predictions that are furthest off")
        return drawn


def report(measures: Mapping[str, float], kept: Arrays) -> NumberReport:
    """Make a report of measures and what was kept."""
    return NumberReport(measures, kept)


def predictions(outputs: NDArray[np.floating], activation: str) -> NDArray[np.float32]:
    """The numbers (n,).

    Raises:
        ValueError: They are not one for each input.
    """
    if outputs.ndim != 2 or outputs.shape[1] != 1:
        raise ValueError(f"it gives values of shape {outputs.shape}, expected one number for each input")
    return outputs.astype(np.float32)[:, 0]


def guesses(predictions: NDArray[np.floating], names: Sequence[str]) -> list[dict[str, Any]]:
    """The number for each input."""
    return [{"image": name, "prediction": float(value)} for name, value in zip(names, predictions, strict=True)]


def table(guesses: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line an input, with the truth and the difference where that is known."""
    width = max(len("input"), *(len(guess["image"]) for guess in guesses))
    known = all("truth" in guess for guess in guesses)
    lines = [f"{'input':>{width}}  prediction" + "       truth  difference" * known]
    for guess in guesses:
        line = f"{guess['image']:>{width}}  {guess['prediction']:10.5g}"
        off = guess["prediction"] - guess["truth"] if known else 0.0
        lines.append(line + (f"  {guess['truth']:10.5g}  {off:10.3g}" if known else ""))
    return lines
