"""Every problem of a config, found at once and before TensorFlow is imported."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, TypeVar, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from experiments.config.problems import Problem, Refused, assign, closest, dotted, shown, suggest
from experiments.config.schema import Config, Mlp, Section, Sequential

S = TypeVar("S", bound=Section)

# What a loss can read, the most usual first. Losses that are not named here take any output.
PROBABILITIES, MARGINS = ("softmax", "sigmoid", "hard_sigmoid", "sparsemax"), ("tanh", "linear")
NEEDS_PROBABILITIES = re.compile(r"\w+cross_?entropy|kl_divergence|poisson|dice|tversky")
NEEDS_MARGINS = re.compile("(squared_)?hinge")
READS_WHOLE_NUMBERS = frozenset({"sparse_categorical_crossentropy", "categorical_generalized_cross_entropy"})

# Keys by which Hydra and Keras would look up and run arbitrary code.
CODE_KEYS = frozenset({"_target_", "_partial_", "class_name", "registered_name", "module"})

# What pydantic wants, in our words, by the type of its error.
EXPECTED = {
    "greater_than_equal": "{number} of at least {ge:g}",
    "greater_than": "{number} above {gt:g}",
    "less_than_equal": "{number} of at most {le:g}",
    "less_than": "{number} below {lt:g}",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "too_short": "at least one entry",
}


def check(config: DictConfig, schema: type[S], defaults: Callable[[], DictConfig] | None = None) -> S:
    """Return the config, checked.

    Args:
        config: As Hydra composed it.
        schema: What it has to fit.
        defaults: Composes it without the user's values; remedies are taken from there. Called if there are problems.

    Raises:
        Refused: With every problem that was found.
    """
    try:
        return _check(config, schema, {})
    except Refused:
        if defaults is None:
            raise
        return _check(config, schema, cast(dict[str, Any], OmegaConf.to_container(defaults())))


def _check(config: DictConfig, schema: type[S], defaults: Mapping[str, Any]) -> S:
    plain, problems = _resolve(config, defaults)
    problems += find_problems(plain, schema, defaults)
    if not problems and isinstance(config.get("model"), DictConfig):
        problems = list(_unused_knobs(config.model))
    if problems:
        first: dict[str, Problem] = {}  # of those about the same key
        for problem in problems:
            first.setdefault(problem.where, problem)
        raise Refused(list(first.values()))
    return schema.model_validate(plain)


def find_problems(plain: dict[str, Any], schema: type[Section], defaults: Mapping[str, Any]) -> list[Problem]:
    """List all problems of a resolved config: code, types and ranges, then keys that do not go together."""
    problems = list(_code(plain))
    try:
        checked = schema.model_validate(plain)
    except ValidationError as error:
        return problems + _explain(error, plain, defaults)
    if isinstance(checked, Config):
        problems += [*_loss_and_activation(checked), *_watched_metrics(checked), *_lone_halves(checked)]
    return problems


def _resolved(config: DictConfig) -> dict[str, Any]:
    values = {str(key): config[key] for key in config if key != "hydra"}
    return {
        key: OmegaConf.to_container(value, resolve=True, throw_on_missing=True) if OmegaConf.is_config(value) else value
        for key, value in values.items()
    }


def _resolve(config: DictConfig, defaults: Mapping[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
    """Resolve interpolations; what cannot be resolved gets its default, so that the other keys can be checked."""
    with suppress(OmegaConfBaseException):
        return _resolved(config), []  # without a copy, which takes most of the time of a check
    copy = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    problems: dict[str, Problem] = {}
    while True:
        try:
            plain = OmegaConf.to_container(copy, resolve=True, throw_on_missing=True)
            return {str(key): value for key, value in cast(dict[str, Any], plain).items()}, list(problems.values())
        except OmegaConfBaseException as error:
            missing = isinstance(error, MissingMandatoryValue)
            what = "is not set, expected a value" if missing else str(error.msg).splitlines()[0]
            key = str(error.full_key)
            if key in problems or not error.full_key:
                raise Refused(Problem(key, what)) from error
            path = tuple(int(part) if part.isdigit() else part for part in re.split(r"[.\[\]]+", key.rstrip("]")))
            problems[key] = Problem(key, what, _remedy(path, {}, defaults))
            OmegaConf.update(copy, key, _at(defaults, path))


def _code(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[Problem]:
    """Find keys that would make Hydra or Keras look up arbitrary code."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        where = dotted([*path, key])
        if key in CODE_KEYS:
            what = (
                f"got {item!r}, but a config names Keras objects only, as {{Dense: {{units: 10}}}}; "
                "classes of your own package are allowed by trust=[mypackage]"
            )
            yield Problem(where, what, "" if "[" in where else f"~{where}")
        else:
            yield from _code(item, (*path, key))


def _explain(error: ValidationError, plain: dict[str, Any], defaults: Mapping[str, Any]) -> list[Problem]:
    """Turn pydantic's errors into one problem per key; the members of a union are joined by "or"."""
    by_path: dict[tuple[str | int, ...], list[ErrorDetails]] = {}
    for details in error.errors():
        path = _path(details["loc"], plain)
        if details["type"].startswith("union_tag"):  # pydantic names the union: the model; we, the key that decides
            path = (*path, "name")
        by_path.setdefault(path, []).append(details)
    return [_problem(path, group, plain, defaults) for path, group in by_path.items()]


def _path(location: tuple[str | int, ...], plain: Any) -> tuple[str | int, ...]:
    """Keep the parts of pydantic's location that are keys of the config (it adds the names of union members)."""
    path: list[str | int] = []
    for part in location:
        if (isinstance(plain, dict) and part in plain) or (isinstance(plain, list) and isinstance(part, int)):
            path.append(part)
            plain = cast(Any, plain)[part]
        elif isinstance(plain, dict) and location[-1] == part:
            path.append(part)
            break
    return tuple(path)


def _problem(
    path: tuple[str | int, ...], group: list[ErrorDetails], plain: dict[str, Any], defaults: Mapping[str, Any]
) -> Problem:
    where, given, remedy = dotted(path), _at(plain, path), _remedy(path, plain, defaults)
    kinds = {details["type"]: details for details in group}
    if "extra_forbidden" in kinds:
        siblings = _at(defaults, path[:-1]) or _at(plain, path[:-1])
        hint = suggest(str(path[-1]), [str(key) for key in siblings if key not in (path[-1], "hydra")])
        return Problem(where, f"no such key; {hint}", f"~{where}")
    if kinds.keys() & {"missing", "union_tag_not_found"}:
        return Problem(where, "is missing", remedy and f"+{remedy}")
    if kinds.keys() == {"model_type"} and isinstance(given, str) and len(path) > 1:
        what, remedy = "is a group of files, which is chosen with a slash", assign("/".join(map(str, path)), given)
        return Problem(where, what, remedy)
    if "value_error" in kinds:
        return Problem(where, kinds["value_error"]["msg"].removeprefix("Value error, "), remedy)
    expected = " or ".join(dict.fromkeys(_expected(details, given) for details in group))
    return Problem(where, f"got {shown(given)}, expected {expected}", remedy)


def _expected(details: ErrorDetails, given: Any) -> str:
    kind, context = details["type"], details.get("ctx", {})
    if kind in ("literal_error", "union_tag_invalid"):
        choices = re.findall(r"'([^']+)'", context.get("expected") or context["expected_tags"])
        meant = closest(str(given), choices)
        return " or ".join(choices) + (f"; did you mean '{meant}'?" if meant else "")
    number = "a whole number" if isinstance(given, int) else "a number"
    return EXPECTED[kind].format(number=number, **context) if kind in EXPECTED else details["msg"]


def _remedy(path: tuple[str | int, ...], plain: dict[str, Any], defaults: Mapping[str, Any]) -> str:
    """The key's default as an override; in a list, the rest of the user's entries stay."""
    depth = next((i for i, part in enumerate(path) if isinstance(part, int)), len(path))
    value, given = _at(defaults, path[:depth]), _at(plain, path[:depth])
    if depth < len(path) and value and isinstance(value, list) and isinstance(given, list):
        value = [value[min(i, len(value) - 1)] if i == path[depth] else item for i, item in enumerate(given)]
    return "" if value is None or isinstance(value, dict) else assign(dotted(path[:depth]), value)


def _at(tree: Any, path: tuple[str | int, ...]) -> Any:
    for part in path:
        try:
            tree = tree[part]
        except (KeyError, IndexError, TypeError):
            return None
    return tree


def last_activation(config: Config) -> str | None:
    """Name of the network's last activation, or None where the layers alone do not say."""
    if isinstance(config.model, Mlp):
        return config.model.output_activation
    last = config.model.layers[-1]
    name, arguments = (last, {}) if isinstance(last, str) else next(iter(last.items()))
    if name == "Softmax":
        return "softmax"
    if name not in ("Dense", "Activation"):
        return None
    activation = (arguments or {}).get("activation") or "linear"
    return activation if isinstance(activation, str) else None


def _loss_and_activation(config: Config) -> Iterator[Problem]:
    model, loss, activation = config.model, config.loss, last_activation(config)
    own_class = "." in loss.name  # which labels it reads, only its author knows
    if not own_class and (labels := "sparse" if loss.name in READS_WHOLE_NUMBERS else "one_hot") != loss.labels:
        what = f"got {loss.labels}, but {loss.name} reads {labels} labels"
        yield Problem("loss.labels", what, f"loss.labels={labels}")
    fitting: tuple[str, ...] = ()
    if loss.from_logits:
        fitting, wanted = ("linear",), "logits (loss.from_logits=true): a linear last layer"
    elif NEEDS_PROBABILITIES.fullmatch(loss.name):
        fitting, wanted = PROBABILITIES, "probabilities: softmax or sigmoid last"
    elif NEEDS_MARGINS.fullmatch(loss.name):
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


def _watched_metrics(config: Config) -> Iterator[Problem]:
    names = config.metric_names
    watched = {f"callbacks.{key}.monitor": value.monitor for key, value in config.callbacks.items() if value.monitor}
    if config.objective != "auto":
        watched["objective"] = config.objective
    for where, metric in watched.items():
        base = metric.removeprefix("val_").removeprefix("test_" if where == "objective" else "")
        if base not in names and metric != "learning_rate":
            known = [*names, *(f"val_{name}" for name in names)]
            best = closest(metric, known) or names[-1]
            yield Problem(where, f"got {metric}, which is not recorded; {suggest(metric, known)}", assign(where, best))
        elif metric.startswith("val_") and not config.validates:
            yield Problem(where, f"got {metric}, but no validation set is held out", "data.validation_size=0.1")


def _lone_halves(config: Config) -> Iterator[Problem]:
    """Settings of the optimizer and of callbacks that need, or exclude, each other."""
    optimizer, schedule = config.optimizer, config.optimizer.schedule
    for key, callback in config.callbacks.items():
        if callback.name == "reduce_lr_on_plateau" and schedule.name != "constant":
            what = f"sets the learning rate, which the schedule {schedule.name} sets already"
            yield Problem(f"callbacks.{key}", what, "optimizer/schedule=constant")
        if callback.name == "swap_ema_weights" and not optimizer.use_ema:
            yield Problem(f"callbacks.{key}", "needs an optimizer that averages its weights", "optimizer.use_ema=true")
    if config.resume and not config.tracking.enabled:
        yield Problem("resume", "what finished before is known from the record, and tracking is off", "tracking=mlflow")
    warmup = schedule.arguments().get("warmup_epochs", 0)
    if isinstance(warmup, int | float) and warmup >= config.epochs:
        what = f"got {warmup}, but there are {config.epochs} epochs in all"
        yield Problem("optimizer.schedule.warmup_epochs", what, "optimizer.schedule.warmup_epochs=0")


def _unused_knobs(model: DictConfig) -> Iterator[Problem]:
    """Keys of a sequential model that no layer refers to would be ignored silently."""
    if model.get("name") != "sequential":
        return
    text = str(OmegaConf.to_container(model, resolve=False))
    own = set(Sequential.model_fields)
    for key in map(str, model):
        if key not in own and not re.search(rf"\$\{{(model)?\.{re.escape(key)}\b", text):
            yield Problem(f"model.{key}", f"nothing in model.layers refers to it as ${{model.{key}}}", f"~model.{key}")
