"""What is learned: a module each, which is found by its name. No TensorFlow.

`Task` says what such a module has. Which losses and metrics of Keras fit it follows from the ``targets`` of its file in
``conf/task/`` and from the tables in `config.measures`.
"""

from experiments.task.protocol import Arrays, Measure, Report, Task, Wrong, names, of

__all__ = ["Arrays", "Measure", "Report", "Task", "Wrong", "names", "of"]
