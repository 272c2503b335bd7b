"""Measure the claims of docs/performance.md and docs/sweeps.md: `python scripts/benchmark.py NAME [repeats]`.

NAME is one of: epoch command startup sweep first_epoch full_store memory writers checkpoints compare jobs networks
xla brute_force proposing

What is compared runs in turn (A B C, A B C, ...), so that a machine that drifts hits all alike. Reported are medians,
the spread, and the median of the ratios of each round. Results go to scripts/results/, with machine and versions.
"""

import importlib.metadata
import json
import os
import platform
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from experiments.tracking.provenance import hardware

HERE = Path(__file__).resolve().parent
VERSIONS = ("tensorflow", "keras", "mlflow", "hydra-core", "numpy")
RUN = [sys.executable, "-m", "experiments.run"]
QUICK = ["data=digits", "data.limit=300", "epochs=1", "model.layer_sizes=[8]"]


def main() -> None:
    """Run the benchmark that the first argument names."""
    name = sys.argv[1] if len(sys.argv) > 1 else "startup"
    repeats = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    measures = [epoch, command, startup, sweep, first_epoch, full_store, memory, writers, checkpoints, compare, jobs]
    measures += [networks, xla, brute_force, proposing]
    seconds, against, extra = {measure.__name__: measure for measure in measures}[name](repeats)
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
    print(json.dumps(extra, indent=2))


def spread(values: list[float]) -> dict[str, float]:
    """Median and range."""
    rounded = {"median": statistics.median(values), "minimum": min(values), "maximum": max(values)}
    return {key: round(value, 3) for key, value in rounded.items()}


def machine() -> str:
    """Processor and cores."""
    return f"{hardware()['hardware.processor']}, {os.cpu_count()} cores, {platform.system()}"


Result = tuple[dict[str, list[float]], list[tuple[str, str]], dict[str, Any]]


def in_turn(
    candidates: Mapping[str, Callable[[], float]], repeats: int, warm_up: bool = True
) -> dict[str, list[float]]:
    """Time each candidate once a round; one round first that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for number in range(repeats + warm_up):
        for name, measure in candidates.items():
            value = measure()
            if number >= warm_up:
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


# Layers as they are written on the command line.
DENSE = "Flatten,{Dense:{units:512,activation:relu}}"
ROWS = "{Reshape:{target_shape:[28,28]}}"
CONVOLUTION = "{Conv1D:{filters:32,kernel_size:5,activation:relu}},GlobalAveragePooling1D"
SHIFTED = "{RandomTranslation:{height_factor:0.1,width_factor:0.1}},{RandomRotation:{factor:0.05}}"


def sequential(layers: str) -> list[str]:
    """Overrides for a network of these layers, with the output layer added."""
    return ["model=sequential", f"model.layers=[{layers},{{Dense:{{units:classes,activation:softmax}}}}]"]


# Kinds of network: what selects them, epochs, and images; `baselines/networks.py` has the same in plain Keras.
NETWORKS: dict[str, tuple[list[str], int, int]] = {
    "mlp": ([], 5, 60_000),
    "dropout": (["model.dropout=0.2"], 5, 60_000),
    "noise": (sequential(f"{{GaussianNoise:{{stddev:0.1}}}},{DENSE}"), 5, 60_000),
    "batch normalisation": (["model.batch_normalization=true"], 5, 60_000),
    "deep": (["model.layer_sizes=[128,128,128,128,128,128,128,128,128,128]"], 5, 60_000),
    "small": (["model.layer_sizes=[16]"], 5, 60_000),
    "convnet": (["model=convnet"], 2, 6_000),
    "lenet5": (["model=lenet5"], 3, 12_000),
    "1-D convolution": (sequential(f"{ROWS},{CONVOLUTION}"), 3, 12_000),
    "recurrent": (sequential(f"{ROWS},{{GRU:{{units:32}}}}"), 2, 6_000),
    "augmentation": (sequential(f"{SHIFTED},{DENSE}"), 3, 12_000),
    "l2": (["model.regularizer=l2"], 5, 60_000),
}


def networks(repeats: int) -> Result:
    """Whole commands for 12 kinds of network, without a record, and the same in plain Keras."""
    baseline = str(HERE / "baselines" / "networks.py")
    candidates: dict[str, Callable[[], float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind, (overrides, epochs, limit) in NETWORKS.items():
            ours = [*RUN, "tracking=off", f"epochs={epochs}", *overrides]
            if limit < 60_000:
                ours.append(f"data.limit={limit}")
            candidates[kind] = process(ours, folder)
            candidates[f"{kind}, plain Keras"] = process(
                [sys.executable, baseline, kind, str(epochs), str(limit)], folder
            )
        seconds = in_turn(candidates, repeats)
    return seconds, [(kind, f"{kind}, plain Keras") for kind in NETWORKS], {}


def xla(repeats: int) -> Result:
    """Commands with XLA and without, for kinds of layers and numbers of steps: when should `runtime: auto` use it?"""
    candidates: dict[str, Callable[[], float]] = {}
    kinds = {kind: NETWORKS[kind][0] for kind in NETWORKS if NETWORKS[kind][2] == 60_000}
    with tempfile.TemporaryDirectory() as folder:
        for kind, overrides in kinds.items():
            for epochs in (1, 2, 4):
                words = [*RUN, "tracking=off", f"epochs={epochs}", *overrides]
                for setting in ("true", "false"):
                    name = f"{kind}, {epochs * 469} steps, runtime.xla={setting}"
                    candidates[name] = process([*words, f"runtime.xla={setting}"], folder)
        seconds = in_turn(candidates, repeats)
    return seconds, [(name, name.replace("true", "false")) for name in candidates if name.endswith("true")], {}


def startup(repeats: int) -> Result:
    """What answers without training, against importing Hydra."""
    with tempfile.TemporaryDirectory() as folder:
        candidates = {
            "--help": process([*RUN, "--help"], folder),
            "--cfg job": process([*RUN, "--cfg", "job"], folder),
            "refused": process([*RUN, "epochs=0"], folder, expected=2),
            "refused, a typo in a Keras name": process([*RUN, "model.activation=rleu"], folder, expected=2),
            "import hydra": process([sys.executable, "-c", "import hydra"], folder),
        }
        seconds = in_turn(candidates, repeats)
    return seconds, [(name, "import hydra") for name in candidates if name != "import hydra"], {}


def epoch(repeats: int) -> Result:
    """Later epochs of the reference network: plain fit, ours without and with XLA, and its matrix products alone."""
    import keras
    import numpy as np
    import tensorflow as tf
    from hydra import compose, initialize_config_dir

    from experiments.cli.checks import CONF
    from experiments.config import Config, check
    from experiments.data import load
    from experiments.engine import backend, models, training

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


def sweep(repeats: int) -> Result:
    """Seconds per run of a sweep of 16 reference runs, of the notebook's script, and of a multirun with autologging.

    The script takes as long each time, and the multirun's runs do but for its imports: a few of each stand for sixteen.
    """
    runs, alone, autologged = 16, 3, 4
    baselines = HERE / "baselines"
    with tempfile.TemporaryDirectory() as folder:
        ours = process([*RUN, "-m", f"seed=range({runs})"], folder)
        notebook = process([sys.executable, str(baselines / "notebook.py")], folder)
        autolog = process(
            [sys.executable, str(baselines / "hydra_autolog.py"), "-m", f"+n=range({autologged})"], folder
        )
        candidates = {
            "a run of our sweep": lambda: ours() / runs,
            "the notebook's script": lambda: sum(notebook() for _ in range(alone)) / alone,
            "a run of a Hydra multirun with autologging": lambda: autolog() / autologged,
        }
        seconds = in_turn(candidates, repeats, warm_up=False)
    first, second, third = candidates
    return seconds, [(first, second), (first, third)], {"runs": runs, "workers": os.cpu_count()}


def brute_force(repeats: int) -> Result:
    """Seconds of 12 runs of 10 epochs as a search of all points, and as a grid; a fresh store each time."""
    swept = ["optimizer=adam,rmsprop,sgd", "batch_size=128,256", "model.layer_sizes=[128],[64]"]
    common = [*swept, "epochs=10", "data.validation_size=10000"]
    search = ["hydra/sweeper=optuna", "hydra/sweeper/sampler=brute_force", "hydra/sweeper/pruner=off"]

    def measured(arguments: list[str]) -> float:
        with tempfile.TemporaryDirectory() as folder:
            return process([*RUN, "-m", *arguments], folder)()

    candidates = {
        "a search by brute force": lambda: measured([*search, *common]),
        "the same points as a grid": lambda: measured(common),
    }
    first, second = candidates
    return in_turn(candidates, repeats, warm_up=False), [(first, second)], {"runs": 12, "workers": os.cpu_count()}


def proposing(repeats: int) -> Result:
    """What a search adds to a trial of 10 epochs, as many trials as `repeats`, with no network trained."""
    import hydra
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.utils import setup_globals
    from hydra.types import RunMode
    from omegaconf import OmegaConf

    from experiments.cli.checks import CONF
    from experiments.sweeps.composer import Composer
    from experiments.sweeps.jobs import Outcome, prepare
    from experiments.sweeps.proposers.optuna import propose
    from experiments.sweeps.search.settings import Settings

    files = CONF / "hydra" / "sweeper"
    chosen = {"sampler": files / "sampler" / "tpe.yaml", "pruner": files / "pruner" / "successive_halving.yaml"}
    settings = Settings(**{key: OmegaConf.to_container(OmegaConf.load(file)) for key, file in chosen.items()})  # type: ignore[arg-type]
    space = ["optimizer=adam,rmsprop,sgd", "optimizer.learning_rate=tag(log,interval(1e-4,1))"]
    space += ["model.layer_sizes=choice([64],[128],[256],[128,64],[256,128])", "model.dropout=interval(0,0.5)"]
    common = ["epochs=10", "data=digits", "data.validation_size=100", "tracking=off"]
    seconds: dict[str, list[float]] = {"proposing a trial": [], "its ten epochs and its end": []}
    setup_globals()
    with tempfile.TemporaryDirectory() as folder, hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        os.chdir(folder)
        loader = GlobalHydra.instance().config_loader()
        composer = Composer(loader, loader.load_configuration("config", [], RunMode.MULTIRUN))
        enough = settings.model_copy(update={"n_trials": repeats})
        with closing(propose(enough, [*common, *space], loader, partial(prepare, composer=composer))) as search:
            search.begin(Path(folder))
            started = time.perf_counter()
            while job := search.next():
                proposed = time.perf_counter()
                value = 0.37 * job.number % 1
                answers = (epoch for epoch in range(1, 11) if search.epoch(job, epoch, {"val_accuracy": value}))
                stopped = next(answers, 0)
                search.tell(job, Outcome(value, pruned=stopped))
                ended = time.perf_counter()
                for name, taken in zip(seconds, (proposed - started, ended - proposed), strict=True):
                    seconds[name].append(taken)
                started = ended
        os.chdir(HERE)
    return seconds, [], {"trials": repeats}


def first_epoch(repeats: int) -> Result:
    """From Enter to the end of the first epoch (a short one), of a single run and of a sweep of 100."""
    short = ["data=digits", "model.layer_sizes=[8]"]

    def until_first_epoch(arguments: list[str]) -> float:
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            running = subprocess.Popen([*RUN, *arguments], cwd=folder, stdout=subprocess.PIPE, text=True)
            assert running.stdout is not None
            if "-m" not in arguments:
                while not running.stdout.readline().startswith("epoch"):
                    pass
            else:
                while not any("epoch" in log.read_text() for log in Path(folder).glob("mlruns/multirun/*/*/*/run.log")):
                    time.sleep(0.02)
            seconds = time.perf_counter() - started
            running.terminate()
            running.communicate()
            return seconds

    candidates = {
        "sweep of 100": lambda: until_first_epoch(["-m", *short, "seed=range(100)"]),
        "single run": lambda: until_first_epoch(short),
    }
    return in_turn(candidates, repeats), [("sweep of 100", "single run")], {}


def full_store(repeats: int) -> Result:
    """A short run, and a sweep of four, on a store that holds 10,000 runs, against one that holds a few."""
    with tempfile.TemporaryDirectory() as empty, tempfile.TemporaryDirectory() as full:
        for folder in (empty, full):
            process([*RUN, *QUICK], folder)()
        copies = 10_000
        multiply_runs(Path(full) / "mlruns" / "mlflow.db", "SELECT run_uuid FROM runs", copies)
        single, several = [*RUN, *QUICK], [*RUN, "-m", *QUICK, "seed=range(4)"]
        candidates = {
            f"run, {copies} in the store": process(single, full),
            "run": process(single, empty),
            f"sweep of 4, {copies} in the store": process(several, full),
            "sweep of 4": process(several, empty),
        }
        names = list(candidates)
        return in_turn(candidates, repeats), [(names[0], names[1]), (names[2], names[3])], {"runs in the store": copies}


def multiply_runs(store: Path, which: str, copies: int, beneath: str = "mlflow.parentRunId") -> None:
    """Copy the first run that a query finds, with all that belongs to it; its seed becomes the number of the copy.

    Args:
        store: A SQLite file.
        which: The query.
        copies: How many.
        beneath: The tag that names a copy's parent.
    """
    with closing(sqlite3.connect(store)) as connection, connection:
        run_id = connection.execute(which).fetchone()[0]
        for number in range(copies):
            for table in ("runs", "params", "tags", "metrics", "latest_metrics"):
                columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
                values = ["run_uuid || ?" if column == "run_uuid" else column for column in columns]
                connection.execute(
                    f"INSERT INTO {table} ({', '.join(columns)}) "  # noqa: S608 - MLflow's own names
                    f"SELECT {', '.join(values)} FROM {table} WHERE run_uuid = ?",
                    (f"-{beneath}-{number}", run_id),
                )
            copy = f"{run_id}-{beneath}-{number}"
            connection.execute("UPDATE params SET value = ? WHERE key = 'seed' AND run_uuid = ?", (str(number), copy))
            renamed = "UPDATE tags SET key = ? WHERE key = 'mlflow.parentRunId' AND run_uuid = ?"
            connection.execute(renamed, (beneath, copy))


def memory(repeats: int) -> Result:
    """Growth of the launcher's resident memory while 200 short runs come and go."""
    runs = 200
    with tempfile.TemporaryDirectory() as folder:
        running = subprocess.Popen(
            [*RUN, "-m", *QUICK, f"seed=range({runs})"], cwd=folder, stdout=subprocess.PIPE, text=True
        )
        assert running.stdout is not None
        resident = []
        for line in running.stdout:
            if line.startswith("["):
                resident.append(psutil.Process(running.pid).memory_info().rss / 2**20)
        assert running.wait() == 0
    assert len(resident) == runs
    return {}, [], {"runs": runs, "MiB after the first run": resident[0], "MiB after the last": resident[-1]}


def writers(repeats: int) -> Result:
    """500 short runs by 8 workers on one SQLite file: complete records, and errors of locks."""
    runs = 500
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        command_line = [*RUN, "-m", *QUICK, f"seed=range({runs})", "hydra.launcher.workers=8"]
        done = subprocess.run(command_line, cwd=folder, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - started
        logs = [log.read_text() for log in Path(folder).glob("mlruns/multirun/*/*/*/run.log")]
        models = len(list(Path(folder).glob("mlruns/artifacts/**/model.keras")))
        with closing(sqlite3.connect(Path(folder) / "mlruns" / "mlflow.db")) as connection:
            complete = connection.execute(
                "SELECT count(*) FROM runs r JOIN latest_metrics m ON m.run_uuid = r.run_uuid AND m.key = 'objective' "
                "JOIN tags t ON t.run_uuid = r.run_uuid AND t.key = 'fingerprint' WHERE r.status = 'FINISHED'"
            ).fetchone()[0]
    locked = sum("locked" in text for text in [*logs, done.stdout, done.stderr])
    found = {"runs": runs, "complete records": complete, "models": models, "outputs that say locked": locked}
    return {"500 runs by 8 workers": [seconds]}, [], {**found, "exit status": done.returncode}


def checkpoints(repeats: int) -> Result:
    """Seconds that the checkpoints of the reference run take, against those of its training."""
    from hydra import compose, initialize_config_dir

    from experiments import data
    from experiments.cli.checks import CONF
    from experiments.config import Config, check
    from experiments.engine import backend, models, run_callbacks, training
    from experiments.engine.checkpoints import Checkpoints
    from experiments.system.resources import available_cores

    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = check(compose("config"), Config)
    backend.start("auto", "float32", 0)
    dataset = data.load(config.data, 0)
    save = run_callbacks.KeepCheckpoints.on_epoch_end
    spent: list[float] = []

    def timed(self: Any, epoch: int, logs: Any = None) -> None:
        started = time.perf_counter()
        save(self, epoch, logs)
        spent[-1] += time.perf_counter() - started

    run_callbacks.KeepCheckpoints.on_epoch_end = timed  # type: ignore[method-assign]
    seconds: dict[str, list[float]] = {"checkpoints": spent, "training": []}
    for _ in range(repeats):
        spent.append(0.0)
        choices = training.choose(config, dataset, available_cores())
        model = models.build(config, dataset, choices.xla, choices.steps_per_execution)
        with tempfile.TemporaryDirectory() as folder:
            kept = Checkpoints(Path(folder))
            timings = training.fit(model, dataset, config, choices, [], checkpoints=kept).timings
        seconds["training"].append(timings["fit_seconds"])
    return seconds, [("checkpoints", "training")], {}


def compare(repeats: int) -> Result:
    """Comparing a sweep of 100 in a store of 10,000 runs, against the import of MLflow."""
    with tempfile.TemporaryDirectory() as folder:
        process([*RUN, "-m", *QUICK, "optimizer=adam,sgd"], folder)()
        store = Path(folder) / "mlruns" / "mlflow.db"
        children = "SELECT run_uuid FROM tags WHERE key = 'mlflow.parentRunId' ORDER BY run_uuid {} LIMIT 1"
        for order in ("ASC", "DESC"):
            multiply_runs(store, children.format(order), 49)
        multiply_runs(store, children.format("ASC"), 9_900, beneath="formerly.beneath")
        ours = [sys.executable, "-m", "experiments.compare", "sweep=latest"]
        candidates = {
            "compare": process(ours, folder),
            "compare, with report": process([*ours, "report=report.html"], folder),
            "import mlflow": process([sys.executable, "-c", "import mlflow"], folder),
        }
        seconds = in_turn(candidates, repeats)
        size = (Path(folder) / "report.html").stat().st_size
    first, second, third = candidates
    return seconds, [(first, third), (second, third)], {"bytes of the report of 100 runs": size}


def jobs(repeats: int) -> Result:
    """Composing and checking 1,008 jobs of a sweep, in one process: seconds, and those of the processor."""
    import hydra
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.utils import setup_globals
    from hydra.types import RunMode

    from experiments.cli.checks import CONF
    from experiments.sweeps.composer import Composer
    from experiments.sweeps.jobs import prepare
    from experiments.sweeps.proposers.grid import combinations

    overrides = [
        "data=digits",
        "optimizer=rmsprop,adam,sgd",
        "optimizer.learning_rate=0.1,0.01,0.001,0.0001",
        "model.layer_sizes=[512],[256,128],[64]",
        "seed=range(28)",
    ]
    setup_globals()
    seconds: dict[str, list[float]] = {"1,008 jobs": [], "1,008 jobs, seconds of the processor": []}
    with tempfile.TemporaryDirectory() as folder, hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        os.chdir(folder)
        loader = GlobalHydra.instance().config_loader()
        master = loader.load_configuration("config", [], RunMode.MULTIRUN)
        for _ in range(repeats):
            clocks = time.perf_counter(), time.process_time()
            wanted = combinations(OverridesParser.create(loader).parse_overrides(overrides), 2000)
            assert len(prepare(wanted, Composer(loader, master))) == 1008
            for name, clock, started in zip(seconds, (time.perf_counter, time.process_time), clocks, strict=True):
                seconds[name].append(clock() - started)
        os.chdir(HERE)
    each = {
        f"milliseconds a job, of {name}": spread([1000 * value / 1008 for value in values])
        for name, values in seconds.items()
    }
    return seconds, [], each


if __name__ == "__main__":
    main()
