"""What a run may be told: schema, value checks and how a refusal reads. Imports no TensorFlow."""

from experiments.config.checks import check
from experiments.config.problems import Problem, Refused, RunFailed, suggest
from experiments.config.schema import Config, PredictConfig

__all__ = ["Config", "PredictConfig", "Problem", "Refused", "RunFailed", "check", "suggest"]
