"""What a loss and metrics can be handed: probabilities where they need them, and one number where one is expected."""

from collections.abc import Iterator

from experiments.config import measures
from experiments.config.problems import Problem, assign
from experiments.config.schema import Config


def measure_problems(config: Config, activation: str | None) -> Iterator[Problem]:
    """List what is wrong with the loss and each metric.

    Args:
        config: The config.
        activation: Name of the network's last activation; None: unknown.
    """
    reduction = config.loss.arguments().get("reduction", "sum_over_batch_size")
    if reduction in (None, "none"):
        what = "got none, which is one loss for each image; expected sum_over_batch_size, mean or sum"
        yield Problem("loss.reduction", what, "loss.reduction=sum_over_batch_size")
    softmax, found, mended = _gives_probabilities(config, activation), list[tuple[str, str, str]](), list[object]()
    for index, entry in enumerate(measures.named_metrics(config.metrics)):
        where, spec = f"metrics[{index}]", config.metrics[index]
        if measures.plain(entry.cls) in map(measures.plain, measures.NO_MEASURES):
            what = f"{entry.cls} averages or adds numbers, and compares nothing with labels"
            found.append((where, what, "metrics=[accuracy]"))
            continue
        if config.task.targets == "numbers" and "." not in entry.cls and not _compares_numbers(entry.cls):
            what = f"{entry.cls} compares classes, but the targets are numbers"
            found.append((where, what, "metrics=[mean_absolute_error]"))
            continue
        if "." in entry.cls and (labels := entry.arguments.get("labels", "sparse")) not in ("sparse", "one_hot"):
            what = f"got {labels!r}, expected sparse (whole numbers) or one_hot: how {entry.cls} reads labels"
            yield Problem(f"{where}.labels", what)
        if "average" in entry.arguments and entry.arguments["average"] is None and measures.metric(entry.cls):
            what = "got null, which is one value for each class; expected macro, micro or weighted"
            found.append((f"{where}.average", what, ""))
            spec = {entry.cls: {**entry.arguments, "average": "macro"}}
        if needs := _needs_probabilities_of_others(config, entry, activation):
            what = (
                f"{entry.cls} needs probabilities, but the last layer's activation is {activation}, and the loss does "
                "not say that it gives logits (loss.from_logits)"
            )
            found.append((where, what, softmax))
        mended += [spec] if softmax or not needs else []
    yield from (
        Problem(where, what, remedy or assign("metrics", measures.without_repeats(mended)))
        for where, what, remedy in found
    )


def _compares_numbers(cls: str) -> bool:
    known = measures.metric(cls)
    return known is not None and known.values


def _needs_probabilities_of_others(config: Config, entry: measures.NamedMetric, activation: str | None) -> bool:
    """Whether a metric that needs probabilities is handed margins or the like. Logits are made probabilities."""
    if activation is None or activation in measures.PROBABILITIES or config.loss.from_logits:
        return False
    loss = measures.loss(config.loss.name)
    if loss and loss.reads == "probabilities":  # which is a problem of the loss
        return False
    return measures.needs_probabilities(entry.cls, entry.arguments)


def _gives_probabilities(config: Config, activation: str | None) -> str:
    """The override that has the network give probabilities; empty where its loss does not take them."""
    loss = measures.loss(config.loss.name)
    fits = loss and loss.reads == "any" and config.loss.output_activation == activation
    return "loss.output_activation=softmax" if fits else ""
