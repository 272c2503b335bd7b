"""Count false "worse than the best" claims, and measure the power: `python scripts/false_claims.py [sweeps [seed]]`.

Nothing is trained: values are drawn, in percentage points. A run's value is an effect of its seed, which is the same
for all configs where they share seeds, plus an effect of config and seed. The best config is the one with the best
mean, as in `compare`. A sweep over equal configs makes a false claim if any config is called worse than the best. The
power is the share of the other configs that are called worse where one is better than all others. Results go to
scripts/results/false_claims.json.

The exit status is 1 if a rate is beyond its target by more than chance (three standard errors).
"""

import json
import platform
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from benchmark import machine
from numpy.typing import NDArray

from experiments.ranking.significance import judge

SHARED, OWN = 0.1, 0.15  # standard deviations of what a seed does to all configs, and to one
UNEQUAL = 0.7  # OWN is multiplied by a lognormal variable whose logarithm has this standard deviation
COLLAPSING, LOSS = 0.1, 5.0  # share of runs that collapse, and what they lose: exponential, with this mean
MISSING = 0.1  # share of runs without a result
BETTER = (0.2, 0.5)  # what one config is better by, where power is measured
UNSTABLE = (-9.0, 3.0)  # mean and standard deviation of a config that learns badly
CONFIGS, SEEDS = (2, 3, 5, 8, 12, 20), (2, 3, 5, 10)
# Kinds of equal configs, with the false claims that are accepted; with two seeds, and with more.
NULLS = {"equal": (0.06, 0.06), "collapsed": (0.06, 0.06), "unequal": (0.12, 0.09), "missing": (0.06, 0.06)}
# Kinds with a config that is better, with the numbers of configs and seeds. The power that is asked for where it is
# better by 0.5 and seeds are shared.
POWERS = {"better": ((2, 4, 8, 20), SEEDS), "beside an unstable one": ((8,), (3, 5))}
ASKED = {
    ("better", 8, 3): 0.5,
    ("better", 8, 5): 0.85,
    ("beside an unstable one", 8, 3): 0.4,
    ("beside an unstable one", 8, 5): 0.75,
}

Values = NDArray[np.float64]
"""Of sweeps: (sweeps, configs, seeds); NaN where a run has no result."""


def main() -> None:
    """Simulate, print, and write down."""
    sweeps = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    random, start = np.random.default_rng(seed), time.monotonic()
    found: list[dict[str, Any]] = []
    for kind, configs, seeds, shared in product(NULLS, CONFIGS, SEEDS, (True, False)):
        # With two configs the rate is meant to be all of 5 %, so it has to be known more exactly.
        count = sweeps * (4 if configs == 2 else 1)
        rate = false_claims(random, kind, count, configs, seeds, shared)
        accepted = NULLS[kind][seeds > 2]
        chance = 3 * (accepted * (1 - accepted) / count) ** 0.5
        found.append(
            cell(kind, configs, seeds, shared, sweeps=count, false_claims=rate, target=accepted)
            | {"missed": rate > accepted + chance}
        )
        print(json.dumps(found[-1]), flush=True)
    for kind, shapes in POWERS.items():
        for configs, seeds, better, shared in product(*shapes, BETTER, (True, False)):
            rate = power(random, kind, sweeps // 2, configs, seeds, better, shared)
            asked = ASKED.get((kind, configs, seeds), 0.0) if shared and better == 0.5 else 0.0
            chance = 3 * (asked * (1 - asked) / (sweeps // 2)) ** 0.5
            found.append(
                cell(kind, configs, seeds, shared, sweeps=sweeps // 2, better_by=better, power=rate, target=asked)
                | {"missed": rate < asked - chance}
            )
            print(json.dumps(found[-1]), flush=True)
    summary = {kind: summarise([item for item in found if item["kind"] == kind]) for kind in NULLS}
    result = {
        "seed": seed,
        "deviation by the seed": SHARED,
        "deviation by config and seed": OWN,
        "unequal: logarithm's deviation": UNEQUAL,
        "collapsed: share, mean loss": [COLLAPSING, LOSS],
        "missing: share": MISSING,
        "unstable: mean, deviation": UNSTABLE,
        "machine": machine(),
        "versions": {name: version(name) for name in ("numpy", "scipy")} | {"python": platform.python_version()},
        "seconds": round(time.monotonic() - start),
        "false claims": summary,
        "results": found,
    }
    folder = Path(__file__).parent / "results"
    folder.mkdir(exist_ok=True)
    (folder / "false_claims.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(summary, indent=1))
    missed = [item for item in found if item["missed"]]
    sys.exit("beyond the target:\n" + "\n".join(map(json.dumps, missed)) if missed else None)


def cell(kind: str, configs: int, seeds: int, shared: bool, **measured: float) -> dict[str, Any]:
    """What is written down of one kind of sweep."""
    rounded = {key.replace("_", " "): round(value, 4) for key, value in measured.items()}
    return {"kind": kind, "configs": configs, "seeds": seeds, "shared seeds": shared, **rounded}


def summarise(found: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The false claims of a kind of sweep, of all and of the worst number of configs and seeds."""
    total = sum(item["sweeps"] for item in found)
    mean = sum(item["sweeps"] * item["false claims"] for item in found) / total
    two, more = (
        [item["false claims"] for item in found if (item["seeds"] > 2) == several] for several in (False, True)
    )
    return {"sweeps": total, "mean": round(mean, 4), "worst, 3 to 10 seeds": max(more), "worst, 2 seeds": max(two)}


def false_claims(
    random: np.random.Generator, kind: str, sweeps: int, configs: int, seeds: int, shared_seeds: bool
) -> float:
    """The share of sweeps over equal configs in which any is called worse than the best."""
    values = drawn(random, kind, (sweeps, configs, seeds), shared_seeds)
    return sum(len(worse(verdicts)) > 0 for verdicts in judged(values, shared_seeds)) / sweeps


def power(
    random: np.random.Generator, kind: str, sweeps: int, configs: int, seeds: int, better: float, shared_seeds: bool
) -> float:
    """The share of equal configs that are called worse than the one that is better; an unstable one is not counted."""
    values = drawn(random, kind, (sweeps, configs, seeds), shared_seeds)
    values[:, 0] += better
    others = set(map(str, range(1, configs)))
    if kind == "beside an unstable one":
        mean, deviation = UNSTABLE
        values[:, -1] += mean + (deviation**2 - OWN**2) ** 0.5 * random.normal(size=(sweeps, seeds))
        others.remove(str(configs - 1))
    found = [
        len(worse(verdicts) & others) if next(iter(verdicts)) == "0" else 0 for verdicts in judged(values, shared_seeds)
    ]
    return sum(found) / len(others) / sweeps


def drawn(random: np.random.Generator, kind: str, shape: tuple[int, int, int], shared_seeds: bool) -> Values:
    """Draw the values (sweeps, configs, seeds) of equal configs."""
    sweeps, configs, seeds = shape
    own = OWN * (random.lognormal(0, UNEQUAL, (sweeps, configs, 1)) if kind == "unequal" else 1)
    values = own * random.normal(size=shape) + SHARED * random.normal(
        size=(sweeps, 1, seeds) if shared_seeds else shape
    )
    if kind == "collapsed":
        values -= (random.random(shape) < COLLAPSING) * random.exponential(LOSS, shape)
    if kind == "missing":
        values[random.random(shape) < MISSING] = np.nan
    return values


def judged(values: Values, shared_seeds: bool) -> Iterator[Mapping[str, bool | None]]:
    """Judge the configs of each sweep, the best first; either they have the same seeds, or each has its own."""
    for sweep in values:
        by_seed = {
            str(config): {
                str(seed if shared_seeds else 1000 * config + seed): value
                for seed, value in enumerate(row.tolist())
                if np.isfinite(value)
            }
            for config, row in enumerate(sweep)
        }
        known = {config: results for config, results in by_seed.items() if results}
        ranked = sorted(known, key=lambda config: -fmean(known[config].values()))
        verdict = judge([known[config] for config in ranked], lower_is_better=False)
        yield dict(zip(ranked, verdict.indistinguishable_from_best, strict=True))


def worse(verdicts: Mapping[str, bool | None]) -> set[str]:
    """The configs that are significantly worse than the best."""
    return {config for config, verdict in verdicts.items() if verdict is False}


if __name__ == "__main__":
    main()
