"""The record of a run. The only place that knows MLflow."""

from experiments.tracking.recorder import Recorder
from experiments.tracking.store import problems, redact, store_uri

__all__ = ["Recorder", "problems", "redact", "store_uri"]
