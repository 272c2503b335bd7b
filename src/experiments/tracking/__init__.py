"""The record of a run. The only place that knows MLflow."""
