"""Every problem of a config, found at once and before TensorFlow is imported."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from experiments.config.problems import Problem, Refused, assign, closest, dotted, shown, suggest
from experiments.config.schema import Config, Mlp, Section, Sequential

S = TypeVar("S", bound=Section)

# What a loss can read. Losses that are not named here take any output.
PROBABILITIES = frozenset({"softmax", "sigmoid", "hard_sigmoid", "sparsemax"})
NEEDS_PROBABILITIES = frozenset(
    {
        "sparse_categorical_crossentropy",
        "categorical_crossentropy",
        "categorical_focal_crossentropy",
        "kl_divergence",
        "categorical_generalized_cross_entropy",
        "binary_crossentropy",
        "binary_focal_crossentropy",
        "poisson",
        "dice",
        "tversky",
    }
)
NEEDS_MARGINS = frozenset({"hinge", "squared_hinge"})
READS_WHOLE_NUMBERS = frozenset({"sparse_categorical_crossentropy", "categorical_generalized_cross_entropy"})

# Keys by which Hydra and Keras would look up and run arbitrary code.
CODE_KEYS = frozenset({"_target_", "_partial_", "class_name", "registered_name", "module"})

EXPECTED = {
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


def check(config: DictConfig, schema: type[S], defaults: Mapping[str, Any] | None = None) -> S:
    """Return the config, checked.

    Args:
        config: As Hydra composed it.
        schema: What it has to fit.
        defaults: The same config without the user's values; remedies are taken from it.

    Raises:
        Refused: With every problem that was found.
    """
    defaults = defaults or {}
    plain, problems = _resolve(config, defaults)
    problems += find_problems(plain, schema, defaults)
    if not problems and isinstance(config.get("model"), DictConfig):
        problems = list(_unused_knobs(config.model))
    if problems:
        once = {problem.where: problem for problem in reversed(problems)}  # the first of those about the same key
        raise Refused([problem for problem in problems if once[problem.where] is problem])
    return schema.model_validate(plain)


def find_problems(plain: dict[str, Any], schema: type[Section], defaults: Mapping[str, Any]) -> list[Problem]:
    """List all problems of a resolved config: code, types and ranges, then keys that do not go together."""
    problems = list(_code(plain))
    try:
        checked = schema.model_validate(plain)
    except ValidationError as error:
        return problems + _explain(error, plain, schema, defaults)
    if isinstance(checked, Config):
        problems += [*_loss_and_activation(checked), *_watched_metrics(checked), *_lone_halves(checked)]
    return problems


def _resolve(config: DictConfig, defaults: Mapping[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
    """Resolve interpolations; what cannot be resolved gets its default, so that the other keys can be checked."""
    copy = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    problems: dict[str, Problem] = {}
    while True:
        try:
            plain = OmegaConf.to_container(copy, resolve=True, throw_on_missing=True)
            return {str(key): value for key, value in cast(dict[str, Any], plain).items()}, list(problems.values())
        except OmegaConfBaseException as error:
            key = str(error.full_key)
            if key in problems or not error.full_key:
                raise Refused(Problem(key, str(error.msg).splitlines()[0])) from error
            path = tuple(int(part) if part.isdigit() else part for part in re.split(r"[.\[\]]+", key.rstrip("]")))
            missing = isinstance(error, MissingMandatoryValue)
            what = "is not set, expected a value" if missing else str(error.msg).splitlines()[0]
            problems[key] = Problem(key, what, _remedy(path, {}, defaults))
            OmegaConf.update(copy, key, _at(defaults, path))


def _code(value: Any, path: str = "") -> Iterator[Problem]:
    """Find keys that would make Hydra or Keras look up arbitrary code."""
    if isinstance(value, dict):
        for key, inner in value.items():
            where = f"{path}.{key}" if path else str(key)
            if key in CODE_KEYS:
                yield Problem(
                    where,
                    f"got {inner!r}, but a config names Keras objects only, as {{Dense: {{units: 10}}}}; "
                    "classes of your own package are allowed by trust=[mypackage]",
                    "" if "[" in where else f"~{where}",
                )
            else:
                yield from _code(inner, where)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _code(inner, f"{path}[{index}]")


def _explain(
    error: ValidationError, plain: dict[str, Any], schema: type[Section], defaults: Mapping[str, Any]
) -> list[Problem]:
    """Turn pydantic's errors into one problem per key; the members of a union are joined by "or"."""
    by_path: dict[tuple[str | int, ...], list[ErrorDetails]] = {}
    for details in error.errors():
        by_path.setdefault(_path(details["loc"], plain), []).append(details)
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
    where = dotted(path)
    kinds = {details["type"] for details in group}
    if "extra_forbidden" in kinds:
        siblings = _at(defaults, path[:-1]) or _at(plain, path[:-1])
        hint = suggest(str(path[-1]), [str(key) for key in siblings if key not in (path[-1], "hydra")])
        return Problem(where, f"no such key; {hint}", f"~{where}")
    if "missing" in kinds:
        remedy = _remedy(path, plain, defaults)
        return Problem(where, "is missing", f"+{remedy}" if remedy else "")
    if "union_tag_invalid" in kinds or "union_tag_not_found" in kinds:
        name, remedy = _at(plain, (*path, "name")), _remedy((*path, "name"), plain, defaults)
        return Problem(f"{where}.name", f"got {shown(name)}, expected mlp or sequential", remedy and f"++{remedy}")
    if kinds == {"model_type"} and isinstance(given := group[0]["input"], str) and len(path) > 1:
        return Problem(
            where, "is a group of files, which is chosen with a slash", assign("/".join(map(str, path)), given)
        )
    if "value_error" in kinds:
        text = next(str(details["ctx"]["error"]) for details in group if details["type"] == "value_error")
        return Problem(where, text, _remedy(path, plain, defaults))
    expected = " or ".join(dict.fromkeys(_expected(details) for details in group))
    return Problem(where, f"got {shown(group[0]['input'])}, expected {expected}", _remedy(path, plain, defaults))


def _expected(details: ErrorDetails) -> str:
    kind, context = details["type"], details.get("ctx", {})
    if kind in ("greater_than_equal", "greater_than", "less_than_equal", "less_than"):
        noun = "a whole number" if isinstance(details["input"], int) else "a number"
        limit = next(iter(context.values()))
        words = {"greater_than_equal": "of at least", "greater_than": "above"}
        return f"{noun} {words.get(kind, 'of at most' if kind == 'less_than_equal' else 'below')} {limit:g}"
    if kind == "literal_error":
        choices = re.findall(r"'([^']+)'", context["expected"])
        hint = suggest(str(details["input"]), choices)
        return " or ".join(choices) + (f"; {hint}" if hint.startswith("did") else "")
    return EXPECTED.get(kind, details["msg"])


def _remedy(path: tuple[str | int, ...], plain: dict[str, Any], defaults: Mapping[str, Any]) -> str:
    """The key's default as an override; in a list, the rest of the user's entries stay."""
    depth = next((i for i, part in enumerate(path) if isinstance(part, int)), len(path))
    default = _at(defaults, path[:depth])
    if depth == len(path) or not isinstance(default, list) or not default:
        value = default
    else:
        given, index = _at(plain, path[:depth]), path[depth]
        value = [default[min(i, len(default) - 1)] if i == index else item for i, item in enumerate(given)]
    if value is None or isinstance(value, dict):
        return ""
    return assign(dotted(path[:depth]), value)


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
    loss, activation = config.loss, last_activation(config)
    own_class = "." in loss.name  # which labels it reads, only its author knows
    if not own_class and (fitting := "sparse" if loss.name in READS_WHOLE_NUMBERS else "one_hot") != loss.labels:
        yield Problem(
            "loss.labels", f"got {loss.labels}, but {loss.name} reads {fitting} labels", f"loss.labels={fitting}"
        )
    if activation is None:
        return
    if loss.from_logits and activation != "linear":
        yield _misfit(config, activation, "logits (loss.from_logits=true): a linear last layer", "linear")
    elif loss.name in NEEDS_PROBABILITIES and not loss.from_logits and activation not in PROBABILITIES:
        yield _misfit(config, activation, "probabilities: softmax or sigmoid last", "softmax")
    elif loss.name in NEEDS_MARGINS and activation not in ("tanh", "linear"):
        yield _misfit(config, activation, "outputs around -1 and 1: tanh or linear last", "tanh")


def _misfit(config: Config, activation: str, wanted: str, fitting: str) -> Problem:
    where = "model.output_activation" if isinstance(config.model, Mlp) else "model.layers[-1].activation"
    remedy = f"loss.output_activation={fitting}"
    if isinstance(config.model, Mlp) and config.loss.output_activation == fitting:
        remedy = f"model.output_activation={fitting}"
    elif config.loss.output_activation != activation:
        remedy = "loss.from_logits=true" if activation == "linear" else ""
    return Problem(where, f"got {activation}, but the loss {config.loss.name} expects {wanted}", remedy)


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
