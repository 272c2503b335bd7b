"""Configs: overrides, schema, checks, and how a refusal reads. Imports no TensorFlow."""

from experiments.config.checks import check
from experiments.config.commands import CompareConfig, PredictConfig, PromoteConfig, ReproduceConfig, SyncConfig
from experiments.config.problems import Problem, Refused, RunFailed, suggest
from experiments.config.schema import Config

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
