"""Types for what a config names of Keras. A name that Keras does not have is an error of pydantic, as a wrong type is.

Names are looked up where a validation has a context, see `context_of`; what was checked before needs none.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, ValidationError, ValidationInfo
from pydantic_core import InitErrorDetails, PydanticCustomError

from experiments.config import keras_names
from experiments.config.measures import CHOSEN_BY_KERAS
from experiments.config.problems import Problem, closest, suggest

UNKNOWN = "unknown_name"
"""Pydantic's type of these errors. Their context holds the `problem`, placed within the value that is validated; how
many keys deep that is, `inner`; and `mend`, a function that puts the name that was meant in its place, or None."""

Path = tuple[str | int, ...]
Errors = Iterable[InitErrorDetails]


def context_of(plain: Mapping[str, Any]) -> dict[str, Any]:
    """What names are checked with: the trusted packages, and the activation that a loss asks of the last layer."""
    trust, loss = plain.get("trust"), plain.get("loss")
    return {
        "trust": [name for name in trust if isinstance(name, str)] if isinstance(trust, list) else [],
        "output_activation": loss.get("output_activation") if isinstance(loss, dict) else None,
    }


def _checked(errors_of: Callable[[Any, Mapping[str, Any]], Errors]) -> AfterValidator:
    """A validator that finds the errors in a value of the right type, if the validation has a context."""

    def check(value: Any, info: ValidationInfo) -> Any:
        if info.context is not None and (errors := [*errors_of(value, info.context)]):
            raise ValidationError.from_exception_data("names", errors)
        return value

    return AfterValidator(check)


def _error(problem: Problem | None, path: Path, mend: Callable[[Any], Any] | None) -> Errors:
    if problem:
        error = PydanticCustomError(UNKNOWN, "{problem}", {"problem": problem, "inner": len(path), "mend": mend})
        yield InitErrorDetails(type=error, loc=path, input=None)


def _name(kind: str, name: str, context: Mapping[str, Any], path: Path = (), where: str = "") -> Errors:
    """Errors of the name of a class, alone or as the key before its arguments."""

    def mend(value: Any) -> Any:
        return meant if isinstance(value, str) else {meant: value[name]}

    meant = keras_names.meant(kind, name)
    if "." in name:
        yield from _error(keras_names.untrusted(name, where, context["trust"]), path, None)
    elif keras_names.find(kind, name) is None:
        yield from _error(keras_names.unknown(kind, name, where), path, mend if meant else None)


def _text(argument: str, text: str, path: Path = (), where: str = "") -> Errors:
    meant = closest(text, keras_names.texts(argument) or ())
    yield from _error(keras_names.unknown_text(argument, text, where), path, (lambda _: meant) if meant else None)


def _object(kind: str, spec: Any, context: Mapping[str, Any], path: Path = (), where: str = "") -> Errors:
    """Errors of an object that is written as ``Flatten`` or ``{Dense: {units: 10}}``."""
    name, arguments = (spec, None) if isinstance(spec, str) else next(iter(spec.items()))
    if not isinstance(name, str):
        return
    yield from _name(kind, name, context, path, where)
    for key, value in (arguments or {}).items():
        inner = (*path, name, key), f"{where}.{key}"
        if isinstance(value, str) and "." not in name and kind in ("layer", "object"):
            if value != context["output_activation"]:  # which is an error of the loss already
                yield from _text(str(key), value, *inner)
        else:
            yield from _argument(value, context, *inner)


def _argument(value: Any, context: Mapping[str, Any], path: Path = (), where: str = "") -> Errors:
    """Errors of an argument: it, or what a list in it holds, may be an object, too."""
    if isinstance(value, dict) and len(value) == 1 and isinstance(next(iter(value.values())), dict | None):
        yield from _object("object", value, context, path, where)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _argument(inner, context, (*path, index), f"{where}[{index}]")


def _metric(spec: Any, context: Mapping[str, Any]) -> Errors:
    if not isinstance(spec, str) or "." in spec:
        yield from _object("metric", spec, context)
    elif spec.lower() not in CHOSEN_BY_KERAS and keras_names.find("metric", spec) is None:
        known = {*keras_names.classes("metric"), "accuracy", "crossentropy"}
        meant, what = closest(spec, known), f"Keras has no metric {spec!r}; {suggest(spec, known)}"
        yield from _error(Problem("", what), (), (lambda _: meant) if meant else None)


def _single(value: Any) -> Any:
    if isinstance(value, dict) and len(value) != 1:
        raise ValueError(f"got {len(value)} keys, expected a name, or {{name: {{argument: value}}}} with a single name")
    return value


def _class_name(kind: str, *others: str) -> AfterValidator:
    return _checked(lambda name, context: () if name in others else _name(kind, name, context))


_Object = Annotated[str | dict[str, dict[str, Any] | None], BeforeValidator(_single)]
"""A Keras object by name: ``Flatten``, or with arguments ``{Dense: {units: 10}}``."""

Layer = Annotated[_Object, _checked(lambda spec, context: _object("layer", spec, context))]
Regularizer = Annotated[_Object, _checked(lambda spec, context: _object("regularizer", spec, context))]
Metric = Annotated[_Object, _checked(_metric)]
Argument = Annotated[Any, _checked(_argument)]
"""An argument of an optimizer, schedule, loss or callback that the schema does not declare."""
OptimizerName = Annotated[str, _class_name("optimizer")]
ScheduleName = Annotated[str, _class_name("schedule", "constant")]
LossName = Annotated[str, _class_name("loss")]
CallbackName = Annotated[str, _class_name("callback")]
OutputActivation = Annotated[str, _checked(lambda text, context: _text("activation", text))]
Activation = Annotated[
    str,
    _checked(lambda text, context: () if text == context["output_activation"] else _text("activation", text)),
]
"""An activation of a model; the one that its loss expects is checked with the loss."""
Function = Annotated[
    str, _checked(lambda name, context: _error(keras_names.untrusted(name, "", context["trust"]), (), None))
]
