"""Measure the claims of docs/performance.md: `python scripts/benchmark.py epoch|command|startup [repeats]`.

What is compared runs in turn (A B C, A B C, ...), so that a machine that drifts hits all alike. Reported are medians,
the spread, and the median of the ratios of each round. Results go to scripts/results/, with machine and versions.
"""

import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
VERSIONS = ("tensorflow", "keras", "mlflow", "hydra-core", "numpy")
RUN = [sys.executable, "-m", "experiments.run"]


def main() -> None:
    """Run the benchmark that the first argument names."""
    name = sys.argv[1] if len(sys.argv) > 1 else "startup"
    repeats = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    seconds, against, extra = {"epoch": epoch, "command": command, "startup": startup}[name](repeats)
    result = {
        "benchmark": name,
        "repeats": repeats,
        "machine": machine(),
        "versions": {item: importlib.metadata.version(item) for item in VERSIONS}
        | {"python": platform.python_version()},
        "seconds": {item: spread(values) for item, values in seconds.items()},
        "ratios": {
            f"{a} / {b}": spread([x / y for x, y in zip(seconds[a], seconds[b], strict=True)]) for a, b in against
        },
        **extra,
    }
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results" / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n")
    for group in ("seconds", "ratios"):
        for item, values in result[group].items():
            print(f"{item:60} median {values['median']:7.3f}   {values['minimum']:.3f} to {values['maximum']:.3f}")


def spread(values: list[float]) -> dict[str, float]:
    """Median and range."""
    rounded = {"median": statistics.median(values), "minimum": min(values), "maximum": max(values)}
    return {key: round(value, 3) for key, value in rounded.items()}


def machine() -> str:
    """Processor and cores."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
    return f"{model}, {os.cpu_count()} cores, {platform.system()}"


Result = tuple[dict[str, list[float]], list[tuple[str, str]], dict[str, Any]]


def in_turn(candidates: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """Time each candidate once a round; one round first that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for number in range(repeats + 1):
        for name, measure in candidates.items():
            value = measure()
            if number:
                seconds[name].append(value)
    return seconds


def process(command_line: list[str], folder: str, expected: int = 0) -> Callable[[], float]:
    """Make a function that times a command as a whole process."""

    def measure() -> float:
        started = time.perf_counter()
        done = subprocess.run(command_line, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode != expected:
            raise SystemExit(f"{' '.join(command_line)} ended with {done.returncode}\n{done.stderr}")
        return time.perf_counter() - started

    return measure


def command(repeats: int) -> Result:
    """Whole commands: ours with and without a record, the notebook as a script, a Hydra script with autologging."""
    baselines = HERE / "baselines"
    with tempfile.TemporaryDirectory() as folder:
        candidates = {
            "experiments.run": process(RUN, folder),
            "experiments.run tracking=off": process([*RUN, "tracking=off"], folder),
            "notebook script": process([sys.executable, str(baselines / "notebook.py")], folder),
            "Hydra script with autologging": process([sys.executable, str(baselines / "hydra_autolog.py")], folder),
        }
        seconds = in_turn(candidates, repeats)
    ours, off, notebook, autolog = candidates
    added = [a - b for a, b in zip(seconds[ours], seconds[off], strict=True)]
    return (
        seconds,
        [(ours, notebook), (ours, autolog), (off, notebook)],
        {"seconds that the record adds": spread(added)},
    )


def startup(repeats: int) -> Result:
    """What answers without training, against importing Hydra."""
    with tempfile.TemporaryDirectory() as folder:
        candidates = {
            "--help": process([*RUN, "--help"], folder),
            "--cfg job": process([*RUN, "--cfg", "job"], folder),
            "refused": process([*RUN, "epochs=0"], folder, expected=2),
            "import hydra": process([sys.executable, "-c", "import hydra"], folder),
        }
        seconds = in_turn(candidates, repeats)
    return seconds, [(name, "import hydra") for name in ("--help", "--cfg job", "refused")], {}


def epoch(repeats: int) -> Result:
    """Later epochs of the reference network: plain fit, ours without and with XLA, and its matrix products alone."""
    import keras
    import numpy as np
    import tensorflow as tf
    from hydra import compose, initialize_config_dir

    from experiments import backend, models, training
    from experiments.cli import CONF
    from experiments.config import Config, check
    from experiments.data import load

    epochs = 3
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = check(compose("config", ["tracking=off", f"epochs={epochs}"]), Config)
    dataset = load(config.data, config.seed)
    choices = training.choose(config, dataset, backend.start("auto", "float32", 0))
    x, y = dataset.train.x, dataset.train.y

    class Stopwatch(keras.callbacks.Callback):  # type: ignore[misc]
        """Keeps the seconds of the last epoch."""

        def on_epoch_begin(self, number: int, logs: Any = None) -> None:
            self.started = time.perf_counter()

        def on_epoch_end(self, number: int, logs: Any = None) -> None:
            self.seconds = time.perf_counter() - self.started

    def plain() -> float:
        model, watch = models.build(config, dataset, xla=False, steps_per_execution=1), Stopwatch()
        model.fit(x, y, batch_size=config.batch_size, epochs=epochs, verbose=0, callbacks=[watch])
        return float(watch.seconds)

    def ours(xla: bool) -> float:
        model, watch = models.build(config, dataset, xla, choices.steps_per_execution), Stopwatch()
        training.fit(model, dataset, config, choices, [watch])
        return float(watch.seconds)

    # Forward, and the weights' gradients; the first layer passes no gradient on. 2 operations a multiply-add.
    operations = 2 * len(y) * (2 * 784 * 512 + 3 * 512 * 10)
    square = tf.constant(np.random.default_rng(0).normal(size=(2048, 2048)), tf.float32)

    @tf.function  # type: ignore[untyped-decorator]
    def products() -> Any:
        return tf.reduce_sum(tf.stack([tf.reduce_sum(tf.matmul(square + i, square)) for i in range(8)]))

    def limit() -> float:
        started = time.perf_counter()
        products().numpy()
        return operations / (8 * 2 * 2048**3 / (time.perf_counter() - started))

    candidates = {
        "plain model.fit": plain,
        "ours, XLA off": lambda: ours(False),
        "ours, XLA on": lambda: ours(True),
        "matrix products alone": limit,
    }
    fit, off, on, products_alone = candidates
    pairs = [(fit, off), (fit, on), (off, products_alone), (on, products_alone)]
    return in_turn(candidates, repeats), pairs, {"seed": config.seed}


if __name__ == "__main__":
    main()
