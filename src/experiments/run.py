"""Train one configuration: ``python -m experiments.run optimizer=adam epochs=3``."""

from dataclasses import asdict
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from rich.console import Console

from experiments import backend
from experiments.cli import check_run, command
from experiments.data import load
from experiments.tracking import Recorder


def run(composed: DictConfig) -> float:
    """Train, measure and record what a config says; return the objective."""
    config = check_run(composed)
    dataset = load(config.data, config.seed)
    threads = backend.start(config.runtime.threads, config.precision, config.seed)

    # Only now: these import TensorFlow, which a refused run must not wait for.
    from experiments import figures, models, training
    from experiments.evaluation import evaluate, objective
    from experiments.progress import ShowProgress, show_result

    hydra = HydraConfig.get()
    console = Console()
    choices = training.choose(config, dataset, threads)
    model = models.build(config, dataset, choices.xla, choices.steps_per_execution)
    with Recorder(config, dataset, asdict(choices), list(hydra.overrides.task)) as recorder:
        watchers = [ShowProgress(console), training.OnEpochEnd(recorder.log_epoch)]
        history = training.fit(model, dataset, config, choices, Path(hydra.runtime.output_dir), watchers)
        report = evaluate(model, dataset, config, choices.evaluation_batch_size)
        ranked_by = objective(config, history.metrics, report)
        recorder.log_results({**report.measures, **history.timings, "objective": ranked_by}, report.as_json(), history.last_epoch)
        recorder.log_model(model, history.last_epoch)
        recorder.log_figures(figures.draw(history.metrics, report, dataset.test))
    show_result(console, config, report, recorder.run_id)
    return ranked_by


main = command("config")(run)

if __name__ == "__main__":
    main()
