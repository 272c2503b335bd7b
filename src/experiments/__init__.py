"""Config-driven experiments: YAML in, a trained Keras model and its MLflow record out."""

__version__ = "0.1.0"
