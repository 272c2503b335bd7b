"""Train one configuration: ``python -m experiments.run optimizer=adam epochs=3``."""

from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from experiments.cli.checks import check_run
from experiments.cli.command import command
from experiments.config import Config
from experiments.system.resources import available_cores

if TYPE_CHECKING:
    from experiments.data import Dataset
    from experiments.engine.checkpoints import Checkpoints
    from experiments.engine.listener import Listener
    from experiments.tracking.recorder import Recorder
    from experiments.tracking.summary import PastRun


def run(given: Config | DictConfig) -> float:
    """Train, measure and record what a config says; return the objective. A job of a sweep is given a composed one."""
    config = given if isinstance(given, Config) else check_run(given)
    from experiments.data import describe, load
    from experiments.engine import listener
    from experiments.engine.checkpoints import Checkpoints  # a refused run waits for nothing that training needs
    from experiments.tracking.provenance import other_machine
    from experiments.tracking.recorder import Recorder

    hydra = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir)
    with closing(Recorder(config)) as recorder:
        dataset = load(config.data, config.seed, config.trust, config.task.name)
        before = recorder.find_before(dataset, folder)
        if before and before.status == "FINISHED":
            threads = config.runtime.threads
            here = threads if isinstance(threads, int) else available_cores()
            made = other_machine(before.tags.get("hardware.processor", ""), before.threads, here)
            print(f"resume: kept, as it finished before{made and f' {made}'}: {before.name}")
            recorder.keep(before)
            listener.current.measured(before.measures, 0)
            print(*recorder.recorded, sep="\n", end="\n" * bool(recorder.recorded))
            return cast(float, before.objective)
        if config.resume and not before and not config.tracking.parent and (other := recorder.changed):
            print(f"resume: run {other} had this config, but other code, data, versions or flags: it is not kept")
        print(describe(dataset))
        checkpoints = Checkpoints(folder, fingerprint=recorder.fingerprint)
        if before:
            checkpoints = Checkpoints(before.output, before.checkpoints, recorder.fingerprint)
            epochs = checkpoints.state.epochs if checkpoints.state else 0
            print(f"resume: goes on after epoch {epochs} of {config.epochs}: {before.name}")
            with suppress(OSError):
                folder.rmdir()  # its output goes where it went before; a log stays
        overrides = cast(list[str], OmegaConf.to_container(hydra.overrides.task))  # as typed: with ${...} unresolved
        trained = train(config, dataset, recorder, checkpoints, listener.current, overrides=overrides, before=before)
        return trained.measures["objective"]


@dataclass(frozen=True)
class Trained:
    """What came of a run: metrics by epoch, measures of the finished model, and the sha256 of its weights."""

    history: Mapping[str, Sequence[float]]
    measures: Mapping[str, float]
    weights_digest: str


def train(
    config: Config,
    dataset: "Dataset",
    recorder: "Recorder",
    checkpoints: "Checkpoints",
    listener: "Listener",
    *,
    overrides: Sequence[str] = (),
    before: "PastRun | None" = None,
) -> Trained:
    """Build the model, fit it from where its checkpoint stands, measure and record it."""
    from experiments.engine import backend

    state = checkpoints.state
    threads = backend.start(state.threads if state else config.runtime.threads, config.precision, config.seed)
    from keras.callbacks import LambdaCallback

    from experiments.engine import callbacks, models, training  # they import TensorFlow, which `backend` has started
    from experiments.engine.progress import ShowProgress, show_result
    from experiments.engine.run_callbacks import Pruning
    from experiments.task.measuring import evaluate, last_activation, objective

    choices = training.choose(config, dataset, threads)
    model = models.build(config, dataset, choices.xla, choices.steps_per_execution)
    configured = callbacks.build(config, checkpoints.folder, state.epochs if state else 0)
    opened = recorder.start(dataset, asdict(choices), overrides, checkpoints=checkpoints, before=before)
    with opened, ShowProgress() as progress:
        pruning = Pruning(listener, config.epochs, checkpoints)
        watchers = [progress, LambdaCallback(on_epoch_end=recorder.log_epoch), pruning]
        saved = checkpoints if config.tracking.enabled else None
        history = training.fit(model, dataset, config, choices, configured, watchers=watchers, checkpoints=saved)
        measure = training.measurer(model, config, dataset.outputs, choices.evaluation_batch_size)
        report = evaluate(measure, dataset, last_activation(model))
        measures = {**report.measures, "objective": objective(config, history.metrics, report)}
        digest = models.weights_digest(model)
        costs = {"parameters": float(model.count_params()), **history.timings}
        recorder.log_results({**measures, **costs}, history.metrics, report, digest, pruning.after)
        costs |= recorder.log_model(models.for_keras_alone(model, config), dataset.test.x[:1], history.epochs - 1)
        listener.measured({**measures, **costs}, pruning.after)
    checkpoints.remove()
    show_result(progress.console, report, recorder.recorded, recorder.run_id)
    return Trained(history.metrics, measures, digest)


main = command("config", Config)(run)

if __name__ == "__main__":
    main()
