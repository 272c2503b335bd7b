import pytest
from pydantic import ValidationError

from experiments.config.schema import Loss, Optimizer, Runtime, Schedule


def test_keras_reads_only_what_was_written() -> None:
    optimizer = Optimizer.model_validate(
        {"name": "sgd", "learning_rate": 0.1, "clipnorm": None, "nesterov": True, "schedule": {"name": "constant"}}
    )
    assert optimizer.arguments("schedule") == {"learning_rate": 0.1, "clipnorm": None, "nesterov": True}


def test_keras_reads_arguments_that_the_schema_does_not_know() -> None:
    assert Schedule.model_validate({"name": "cosine_decay", "alpha": 0.1}).arguments() == {"alpha": 0.1}


def test_a_config_cannot_be_changed() -> None:
    loss = Loss(name="hinge", labels="one_hot", output_activation="tanh")
    with pytest.raises(ValidationError):
        loss.name = "huber"


def test_nothing_is_converted_silently() -> None:
    with pytest.raises(ValidationError):
        Runtime.model_validate({"threads": "2", "xla": 1, "steps_per_execution": 2.0, "evaluation_batch_size": None})
