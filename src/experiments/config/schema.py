"""Types and ranges of every config key. The defaults are in ``conf/``, the meaning of each key in its comment there."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from experiments.config import measures, named

Scalar = bool | int | float | str | None
Count = Annotated[int, Field(ge=1)]
Whole = Annotated[int, Field(ge=0)]
Size = Annotated[int, Field(ge=1, le=2**31 - 1)]
"""A count that Keras or TensorFlow keeps in 32 bits."""
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]


def _size(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float) or not (value >= 0) or value == float("inf"):
        raise ValueError(f"got {value!r}, expected a count of at least 0, or a fraction below 1")
    if value >= 1 and value != int(value):
        raise ValueError(f"got {value!r}, expected a whole number where it is 1 or more, or a fraction below 1")
    return value


def matching(pattern: str, expected: str) -> AfterValidator:
    """A validator of texts that fit a regular expression."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"got {text!r}, expected {expected}")
        return text

    return AfterValidator(check)


Package = Annotated[str, matching(r"[^\W\d]\w*(\.[^\W\d]\w*)*", "the name of an importable package, such as mypackage")]
DatasetName = Annotated[
    str,
    matching(
        r"(?=.{1,200}$)[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*",
        "up to 200 letters, digits, _, - and single dots between them, as it names a file",
    ),
]


class Section(BaseModel):
    """A part of the config: no unknown keys, no silent conversions, no NaN or infinity."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False, defer_build=True)


class KerasSection(Section):
    """A part whose further keys are arguments of the Keras object that `name` says."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, named.Argument] = Field(init=False)
    name: str

    def arguments(self, *ours: str) -> dict[str, Any]:
        """The keys that Keras reads: all but `name` and `ours`."""
        return self.model_dump(exclude={"name", *ours}, exclude_unset=True)


# Well within the range of float32, so that images divided by the scale still fit into float32.
Scale = Annotated[float, Field(ge=1e-30, le=1e30)]


class Data(Section):
    name: DatasetName
    scale: Scale
    path: str | None
    validation_size: Annotated[int | float, BeforeValidator(_size)]
    limit: Count | None
    function: named.Function | None = None


MOST_LAYERS = 500  # to build and compile more takes minutes


def _not_too_deep(layers: list[Any]) -> list[Any]:
    if len(layers) > MOST_LAYERS:
        raise ValueError(f"got {len(layers):,} layers, expected at most {MOST_LAYERS}")
    return layers


class Mlp(Section):
    name: Literal["mlp"]
    layer_sizes: Annotated[list[Count], Field(min_length=1), AfterValidator(_not_too_deep)]
    activation: named.Activation
    dropout: Fraction
    batch_normalization: bool
    regularizer: named.Regularizer | None
    output_activation: named.Activation


class Sequential(Section):
    """Extra keys are knobs that `layers` refers to, such as ``${model.dropout}``."""

    model_config = ConfigDict(extra="allow")
    name: Literal["sequential"]
    layers: Annotated[list[named.Layer], Field(min_length=1), AfterValidator(_not_too_deep)]


class Schedule(KerasSection):
    name: named.ScheduleName


class Optimizer(KerasSection):
    """Ranges of the arguments that Keras itself does not check; which of them apply, Keras says."""

    name: named.OptimizerName
    schedule: Schedule
    learning_rate: Positive
    momentum: Fraction = 0.0
    rho: Fraction = 0.0
    beta_1: Fraction = 0.0
    beta_2: Fraction = 0.0
    epsilon: Positive = 1e-7
    weight_decay: NotNegative | None = None
    clipnorm: Positive | None = None
    clipvalue: Positive | None = None
    global_clipnorm: Positive | None = None
    ema_momentum: Share = 0.0
    ema_overwrite_frequency: Size | None = None
    gradient_accumulation_steps: Annotated[int, Field(ge=2, le=2**31 - 1)] | None = None
    nesterov: bool = False
    centered: bool = False
    amsgrad: bool = False
    use_ema: bool = False


class Task(Section):
    name: str
    targets: Literal["classes", "numbers"]
    standardize: bool = False


class Loss(KerasSection):
    name: named.LossName
    labels: measures.Labels
    output_activation: named.OutputActivation
    from_logits: bool = False
    label_smoothing: Share = 0.0


class Callback(KerasSection):
    name: named.CallbackName
    monitor: str | None = None
    patience: Annotated[int, Field(ge=0)] = 0
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1


class Tracking(Section):
    enabled: bool
    offline: bool = False
    uri: str | None = None
    experiment: str = ""
    run_name: str | None = None
    tags: dict[str, Scalar] = {}
    code: bool = True
    system_metrics: bool = False
    parent: str | None = None


Auto = Literal["auto"]


class Runtime(Section):
    threads: Annotated[int, Field(ge=1, le=1024)] | Auto
    xla: bool | Auto
    steps_per_execution: Size | Auto
    evaluation_batch_size: Size | Auto
    checkpoint_every: Count | Auto


class Config(Section):
    data: Data
    task: Task = Task(name="classification", targets="classes")
    model: Annotated[Mlp | Sequential, Field(discriminator="name")]
    optimizer: Optimizer
    loss: Loss
    callbacks: dict[str, Callback]
    tracking: Tracking
    epochs: Count
    batch_size: Size
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    metrics: list[named.Metric]
    precision: Literal["float32", "mixed_float16", "mixed_bfloat16"]
    objective: str | Annotated[list[str], Field(min_length=1)]
    objective_mode: measures.Mode | Auto = "auto"
    resume: bool
    trust: list[Package]
    runtime: Runtime

    @property
    def validates(self) -> bool:
        """Whether a validation set is held out of the training set."""
        return self.data.validation_size > 0

    @property
    def objective_metric(self) -> str:
        """What the run is ranked by, the first of several. Test accuracy only where there is nothing else to go by."""
        if (first := self.objectives[0]) != "auto":
            return first
        main = "accuracy" if "accuracy" in self.metric_names else self.metric_names[:2][-1]
        return f"val_{main}" if self.validates else f"test_{main}"

    @property
    def objectives(self) -> list[str]:
        """The objectives as they are given: usually one, which may be ``auto``."""
        return [self.objective] if isinstance(self.objective, str) else self.objective

    @property
    def last_activation(self) -> str | None:
        """Name of the network's last activation, or None where the layers alone do not say."""
        if isinstance(self.model, Mlp):
            return self.model.output_activation
        last = self.model.layers[-1]
        name, arguments = (last, {}) if isinstance(last, str) else next(iter(last.items()))
        if name == "Softmax":
            return "softmax"
        if name not in ("Dense", "Activation"):
            return None
        activation = (arguments or {}).get("activation") or "linear"
        return activation if isinstance(activation, str) else None

    @property
    def lower_is_better(self) -> bool | None:
        """Whether the objective is to be made small; None if ``auto`` cannot say."""
        auto = self.objective_mode == "auto"
        mode = measures.mode_of(self.objective_metric, self.metrics) if auto else self.objective_mode
        return None if mode is None else mode == "min"

    @property
    def metric_names(self) -> list[str]:
        """Names under which an epoch's metrics are recorded, ``loss`` first, without those of the validation set."""
        return ["loss", *(metric.name for metric in measures.named_metrics(self.metrics))]
