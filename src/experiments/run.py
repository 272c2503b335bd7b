"""Train one configuration: ``python -m experiments.run optimizer=adam epochs=3``."""

from dataclasses import asdict
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from experiments.cli import check_run, command


def run(composed: DictConfig) -> float:
    """Train, measure and record what a config says; return the objective."""
    config = check_run(composed)
    from experiments import backend  # a refused run waits for nothing that training needs
    from experiments.data import load
    from experiments.tracking.recorder import Recorder

    recorder = Recorder(config.tracking)
    dataset = load(config.data, config.seed)
    if config.resume and (finished := recorder.find_finished(config, dataset)):
        print(f"resume: kept, as it finished before: run {finished.run_id}")
        return finished.objective
    threads = backend.start(config.runtime.threads, config.precision, config.seed)
    from experiments import models, training  # they import TensorFlow, which `backend` has started
    from experiments.evaluation import evaluate, objective
    from experiments.progress import ShowProgress, show_result

    hydra = HydraConfig.get()
    choices = training.choose(config, dataset, threads)
    model = models.build(config, dataset, choices.xla, choices.steps_per_execution)
    callbacks = training.callbacks(config, Path(hydra.runtime.output_dir))
    opened = recorder.start(config, dataset, asdict(choices), list(hydra.overrides.task))
    with opened, ShowProgress() as progress:
        watchers = [progress, training.OnEpochEnd(recorder.log_epoch)]
        history = training.fit(model, dataset, config, choices, [*callbacks, *watchers])
        report = evaluate(training.measurer(model, config, dataset.classes, choices.evaluation_batch_size), dataset)
        ranked_by = objective(config, history.metrics, report)
        recorder.log_results({**report.measures, **history.timings, "objective": ranked_by}, history.metrics, report)
        recorder.log_model(model, dataset.test.x[:1], len(history.metrics["loss"]) - 1)
    show_result(progress.console, report, recorder.run_id)
    return ranked_by


main = command("config")(run)

if __name__ == "__main__":
    main()
