"""The record of a run. The only package that imports MLflow."""
