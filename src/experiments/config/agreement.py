"""Keys of a config that have to go together: loss and activation, metrics and who watches them, settings in pairs."""

import re
from collections.abc import Collection, Iterator

from omegaconf import DictConfig, OmegaConf

from experiments.config import measures
from experiments.config.callback_checks import callback_problems, meant_metric, watched_metric
from experiments.config.measure_checks import measure_problems
from experiments.config.measures import PROBABILITIES, base_name
from experiments.config.objective import COSTS
from experiments.config.problems import Problem, assign, closest, suggest
from experiments.config.schema import Config, Mlp, Sequential

# Last activations that give margins, the most usual first.
MARGINS = ("tanh", "linear")


def disagreements(config: Config, unknown: Collection[str] = ()) -> list[Problem]:
    """List the keys that are fine alone, but not together.

    Args:
        config: The config.
        unknown: Its sections that name what Keras does not have; nothing follows from those.
    """
    outputs = [] if {"model", "loss"} & set(unknown) else [*_loss_and_activation(config)]
    if not {"model", "loss", "metrics"} & set(unknown):
        outputs += measure_problems(config, config.last_activation)
    measured = [] if "metrics" in unknown else [*_objective(config)]
    callbacks = callback_problems(config, metrics_known="metrics" not in unknown)
    return [*outputs, *measured, *callbacks, *_lone_halves(config)]


def _loss_and_activation(config: Config) -> Iterator[Problem]:
    model, loss, activation = config.model, config.loss, config.last_activation
    known = measures.loss(loss.name)  # None for a loss of the user's own: what it reads is unknown
    numbers = config.task.targets == "numbers"
    if numbers and known and not known.values:
        yield Problem("loss", f"{loss.name} reads classes, but the targets are numbers", "loss=mean_squared_error")
    elif numbers != (loss.labels == "values"):
        what = f"got {loss.labels}, but the targets are {config.task.targets}"
        yield Problem(
            "loss.labels", what, f"loss.labels={'values' if numbers else known.labels if known else 'sparse'}"
        )
    elif known and known.labels != loss.labels and not numbers:
        what = f"got {loss.labels}, but {loss.name} reads {known.labels} labels"
        yield Problem("loss.labels", what, f"loss.labels={known.labels}")
    if measures.plain(loss.name) in map(measures.plain, measures.NO_CLASSIFICATION):
        yield Problem(
            "loss",
            f"{loss.name} reads sequences of labels, and here an input has one",
            "loss=sparse_categorical_crossentropy",
        )
    fitting: tuple[str, ...] = ()
    if loss.from_logits:
        fitting, wanted = ("linear",), "logits (loss.from_logits=true): a linear last layer"
    elif known and known.reads == "probabilities":
        fitting, wanted = PROBABILITIES, "probabilities: softmax or sigmoid last"
    elif known and known.reads == "margins":
        fitting, wanted = MARGINS, "outputs around -1 and 1: tanh or linear last"
    if not fitting or activation is None or activation in fitting:
        return
    remedy = f"loss.output_activation={fitting[0]}"
    if isinstance(model, Mlp) and loss.output_activation == fitting[0]:
        remedy = f"model.output_activation={fitting[0]}"
    elif loss.output_activation != activation:
        remedy = "loss.from_logits=true" if activation == "linear" else ""
    where = "model.output_activation" if isinstance(model, Mlp) else "model.layers[-1].activation"
    yield Problem(where, f"got {activation}, but the loss {loss.name} expects {wanted}", remedy)


def _objective(config: Config) -> Iterator[Problem]:
    metric = config.objective_metric
    if metric in COSTS:
        what = f"got {metric}, a cost; the first objective is a metric, and costs follow it"
        costs = [name for name in config.objectives if name in COSTS]
        others = [name for name in config.objectives if name not in COSTS]
        yield Problem("objective", what, assign("objective", [*(others or ["auto"]), *costs]))
        return
    if config.objectives[0] != "auto":
        yield from watched_metric(config, "objective", metric)
        if base_name(metric) not in config.metric_names:
            metric, _ = meant_metric(config, "objective", metric)
    if config.objective_mode == "auto" and measures.mode_of(metric, config.metrics) is None:
        what = (
            f"got auto, but {metric} is a metric of your own: say whether a lower or a higher value is better, by "
            "objective_mode=min or objective_mode=max"
        )
        yield Problem("objective_mode", what)
    yield from _more_objectives(config)


def _more_objectives(config: Config) -> Iterator[Problem]:
    """What is wrong with objectives after the first: each is a validation metric or a cost, and is named once."""
    given = config.objectives
    known = [*COSTS, *(f"val_{name}" for name in config.metric_names if config.validates)]
    for place, name in enumerate(given[1:], start=1):
        where = f"objective[{place}]"
        if name in given[:place]:
            yield Problem(where, f"got {name} a second time", assign("objective", list(dict.fromkeys(given))))
        elif name not in known:
            mended = [closest(name, known) if each == name else each for each in given]
            remedy = assign("objective", list(dict.fromkeys(filter(None, mended))))
            yield Problem(where, f"got {name}; {suggest(name, known)}", remedy)
        elif name not in COSTS and measures.mode_of(name, config.metrics) is None:
            what = f"{name} is a metric of your own, which can only be the first, with objective_mode=min or max"
            yield Problem(where, what, assign("objective", [name, *(each for each in given if each != name)]))


def _lone_halves(config: Config) -> Iterator[Problem]:
    """Settings that need, or exclude, each other."""
    schedule = config.optimizer.schedule
    if config.resume and not config.tracking.enabled:
        yield Problem("resume", "finished runs are found in the record, but tracking is off", "tracking=mlflow")
    warmup = schedule.arguments().get("warmup_epochs", 0)
    if isinstance(warmup, int | float) and warmup >= config.epochs:
        what = f"got {warmup}, but there are {config.epochs} epochs in all"
        yield Problem("optimizer.schedule.warmup_epochs", what, "optimizer.schedule.warmup_epochs=0")


def unused_knobs(model: DictConfig) -> Iterator[Problem]:
    """Keys of a sequential model that no layer refers to would be ignored silently."""
    if model.get("name") != "sequential":
        return
    text = str(OmegaConf.to_container(model, resolve=False))
    own = set(Sequential.model_fields)
    for key in map(str, model):
        if key not in own and not re.search(rf"\$\{{(model)?\.{re.escape(key)}\b", text):
            yield Problem(f"model.{key}", f"nothing in model.layers refers to it as ${{model.{key}}}", f"~model.{key}")
