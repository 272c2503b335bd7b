"""Configs: overrides, schema, checks, and how a refusal reads. Imports no TensorFlow."""

from experiments.config.checks import check
from experiments.config.problems import Problem, Refused, RunFailed, suggest
from experiments.config.schema import CompareConfig, Config, PredictConfig, PromoteConfig, ReproduceConfig, SyncConfig

__all__ = [
    "CompareConfig",
    "Config",
    "PredictConfig",
    "Problem",
    "PromoteConfig",
    "Refused",
    "ReproduceConfig",
    "RunFailed",
    "SyncConfig",
    "check",
    "suggest",
]
