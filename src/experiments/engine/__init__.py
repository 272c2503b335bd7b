"""Models, built and trained. The only place that starts TensorFlow."""
