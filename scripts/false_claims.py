"""Count false "better than" claims among sweeps of equal configs: `python scripts/false_claims.py [sweeps [seed]]`.

Nothing is trained: accuracies are drawn. A run's is a true accuracy, plus what its seed does to all configs alike (a
validation set that is harder), plus what it does to this config alone, measured on 10,000 images. A sweep makes a false
claim if `compare` says of any config that it is worse than the best. For information, the power is measured as well:
how often a config that is really better is told from all others. Results go to scripts/results/false_claims.json.

The exit status is 1 if more than 5 % of all sweeps made a false claim, or of one kind of sweep by more than chance
(three standard errors: with two configs there is nothing to correct for, so the rate of 5 % is meant to be reached).
"""

import importlib.metadata
import json
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from benchmark import machine
from numpy.typing import NDArray

from experiments.comparison import Run, compare

SHAPES = ((2, 3), (6, 3), (12, 5), (30, 3))  # configs, seeds
TRUE_ACCURACY, IMAGES = 0.975, 10_000
SHARED, OWN = 0.001, 0.001  # standard deviations of what a seed does to all configs, and to one
HEAD_START = 0.01  # of the one that is better, where power is measured


def main() -> None:
    """Simulate, print, and write down."""
    sweeps = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    random = np.random.default_rng(seed)
    found = [measure(random, sweeps, *shape, paired) for shape in SHAPES for paired in (True, False)]
    for item in found:
        print(json.dumps(item))
    versions = {name: importlib.metadata.version(name) for name in ("numpy", "scipy")}
    result: dict[str, Any] = {
        "sweeps of each kind": sweeps,
        "seed": seed,
        "true accuracy": TRUE_ACCURACY,
        "images": IMAGES,
        "deviation by the seed": SHARED,
        "deviation by config and seed": OWN,
        "head start where power is measured": HEAD_START,
        "machine": machine(),
        "versions": versions | {"python": platform.python_version()},
        "false claims": round(sum(float(item["false claims"]) for item in found) / len(found), 4),
        "results": found,
    }
    folder = Path(__file__).parent / "results"
    folder.mkdir(exist_ok=True)
    (folder / "false_claims.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({"false claims of all": result["false claims"]}))
    worst = max(float(item["false claims"]) for item in found)
    chance = 3 * (0.05 * 0.95 / sweeps) ** 0.5
    sys.exit("too many false claims" if result["false claims"] > 0.05 or worst > 0.05 + chance else None)


def measure(
    random: np.random.Generator, sweeps: int, configs: int, seeds: int, shared_seeds: bool
) -> dict[str, float | int | bool]:
    """Simulate sweeps of equal configs, half of them with uneven spreads; then sweeps where one config is better."""
    false = sum(
        claims(accuracies(random, configs, seeds, uneven=number % 2 == 1), shared_seeds) > 0 for number in range(sweeps)
    )
    told = 0
    for _ in range(rounds := max(sweeps // 10, 1)):
        drawn = accuracies(random, configs, seeds, uneven=False)
        drawn[0] = np.minimum(drawn[0] + HEAD_START, 1)
        told += claims(drawn, shared_seeds) == configs - 1
    return {
        "configs": configs,
        "seeds": seeds,
        "shared seeds": shared_seeds,
        "false claims": round(false / sweeps, 4),
        "power": round(told / rounds, 3),
    }


def accuracies(random: np.random.Generator, configs: int, seeds: int, uneven: bool) -> NDArray[np.float64]:
    """Draw the accuracies (configs, seeds) of equal configs; `uneven`: some depend on their seed more than others."""
    own = OWN * (random.uniform(0.2, 5, size=(configs, 1)) if uneven else np.ones((configs, 1)))
    true = TRUE_ACCURACY + SHARED * random.normal(size=seeds) + own * random.normal(size=(configs, seeds))
    return random.binomial(IMAGES, np.clip(true, 0, 1)) / IMAGES


def claims(drawn: NDArray[np.float64], shared_seeds: bool) -> int:
    """Count the configs that `compare` calls worse than the best."""
    return sum(not standing.level for standing in compare(runs_of(drawn, shared_seeds), "", "val_accuracy").standings)


def runs_of(drawn: NDArray[np.float64], shared_seeds: bool) -> Sequence[Run]:
    """Runs with the accuracies (configs, seeds); either all configs have the same seeds, or all of them others."""
    return [
        Run(
            "",
            "",
            "FINISHED",
            {"config": str(config), "seed": str(seed if shared_seeds else 1000 * config + seed)},
            value,
        )
        for config, row in enumerate(drawn.tolist())
        for seed, value in enumerate(row)
    ]


if __name__ == "__main__":
    main()
