"""Every problem of a config, found at once and before TensorFlow is imported."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from experiments.config.problems import Problem, Refused, suggest
from experiments.config.schema import Config, Mlp, Section, Sequential

S = TypeVar("S", bound=Section)

# What a loss can read. Losses that are not named here take any output.
PROBABILITIES = frozenset({"softmax", "sigmoid", "hard_sigmoid", "sparsemax"})
NEEDS_PROBABILITIES = frozenset(
    "sparse_categorical_crossentropy categorical_crossentropy categorical_focal_crossentropy kl_divergence "
    "categorical_generalized_cross_entropy binary_crossentropy binary_focal_crossentropy poisson dice tversky".split()
)
NEEDS_MARGINS = frozenset({"hinge", "squared_hinge"})

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
    plain, problems = _resolve(config)
    if problems:
        raise Refused(problems)
    problems = find_problems(plain, schema, defaults or {})
    if not problems and isinstance(config.get("model"), DictConfig):
        problems = list(_unused_knobs(config.model))
    if problems:
        raise Refused(problems)
    return schema.model_validate(plain)


def find_problems(plain: dict[str, Any], schema: type[Section], defaults: Mapping[str, Any]) -> list[Problem]:
    """List all problems of a resolved config: code, types and ranges, then keys that do not go together."""
    problems = list(_code(plain))
    try:
        checked = schema.model_validate(plain)
    except ValidationError as error:
        return problems + _explain(error, plain, schema, defaults)
    if isinstance(checked, Config):
        problems += [*_loss_and_activation(checked), *_watched_metrics(checked), *_two_learning_rates(checked)]
    return problems


def _resolve(config: DictConfig) -> tuple[dict[str, Any], list[Problem]]:
    shown = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    missing = [
        Problem(key, "is not set, expected a value", f"{key}=VALUE") for key in sorted(OmegaConf.missing_keys(shown))
    ]
    if missing:
        return {}, missing
    try:
        plain = OmegaConf.to_container(shown, resolve=True)
    except OmegaConfBaseException as error:
        return {}, [Problem(error.full_key or "config", str(error.msg).splitlines()[0])]
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}, []


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
                    f"~{where}",
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
        if isinstance(plain, dict) and part in plain or isinstance(plain, list) and isinstance(part, int):
            path.append(part)
            plain = plain[part]
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
        hint = suggest(str(path[-1]), [str(key) for key in siblings if key != path[-1]])
        return Problem(where, f"no such key; {hint}", f"~{where}")
    if "missing" in kinds:
        return Problem(where, "is missing", _remedy(path, plain, defaults))
    if "union_tag_invalid" in kinds or "union_tag_not_found" in kinds:
        return Problem(where, f"expected a mapping whose name is one of {group[0]['ctx']['expected_tags']}")
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
    override = f"{dotted(path[:depth])}={shown(value)}"
    return f"'{override}'" if re.search(r"[{}() $,]", override) and not isinstance(value, list) else override


def _at(tree: Any, path: tuple[str | int, ...]) -> Any:
    for part in path:
        try:
            tree = tree[part]
        except (KeyError, IndexError, TypeError):
            return None
    return tree


def dotted(path: tuple[str | int, ...]) -> str:
    """Write a path as users type it: ``model.layer_sizes[1]``."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")


def shown(value: Any) -> str:
    """Write a value as it is typed on the command line."""
    if isinstance(value, list):
        return "[" + ",".join(map(shown, value)) + "]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return repr(value) if isinstance(value, str) and not re.fullmatch(r"[\w./:-]+", value) else str(value)


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
    built_in = loss.name in NEEDS_PROBABILITIES | NEEDS_MARGINS
    if built_in and loss.name.startswith("sparse") != (loss.labels == "sparse"):
        fitting = "sparse" if loss.name.startswith("sparse") else "one_hot"
        yield Problem("loss.labels", f"got {loss.labels}, but {loss.name} reads {fitting} labels", f"loss.labels={fitting}")
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


def metric_names(config: Config) -> list[str]:
    """Names under which an epoch's metrics are recorded, without those of the validation set."""
    names = ["loss"]
    for metric in config.metrics:
        name, arguments = (metric, None) if isinstance(metric, str) else next(iter(metric.items()))
        names.append(str((arguments or {}).get("name", name.rpartition(".")[2])))
    return names


def _watched_metrics(config: Config) -> Iterator[Problem]:
    names = metric_names(config)
    watched = {f"callbacks.{key}.monitor": value.monitor for key, value in config.callbacks.items() if value.monitor}
    if config.objective != "auto":
        watched["objective"] = config.objective
    for where, metric in watched.items():
        base = metric.removeprefix("val_").removeprefix("test_" if where == "objective" else "")
        if base not in names and metric != "learning_rate":
            known = [*names, *(f"val_{name}" for name in names)]
            best = suggest(metric, known)
            yield Problem(where, f"got {metric}, which is not recorded; {best}", f"{where}={_meant(best, names[-1])}")
        elif metric.startswith("val_") and not config.validates:
            yield Problem(where, f"got {metric}, but no validation set is held out", "data.validation_size=0.1")


def _meant(hint: str, otherwise: str) -> str:
    match = re.match(r"did you mean '(.+)'\?", hint)
    return match[1] if match else otherwise


def _two_learning_rates(config: Config) -> Iterator[Problem]:
    plateau = [key for key, value in config.callbacks.items() if value.name == "reduce_lr_on_plateau"]
    if plateau and config.optimizer.schedule.name != "constant":
        yield Problem(
            f"callbacks.{plateau[0]}",
            f"sets the learning rate, which the schedule {config.optimizer.schedule.name} sets already",
            "optimizer/schedule=constant",
        )


def _unused_knobs(model: DictConfig) -> Iterator[Problem]:
    """Keys of a sequential model that no layer refers to would be ignored silently."""
    if model.get("name") != "sequential":
        return
    text = str(OmegaConf.to_container(model, resolve=False))
    own = set(Sequential.model_fields)
    for key in model:
        if key not in own and not re.search(rf"\$\{{(model)?\.{re.escape(str(key))}\b", text):
            yield Problem(f"model.{key}", f"nothing in model.layers refers to it as ${{model.{key}}}", f"~model.{key}")
