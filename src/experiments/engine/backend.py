"""Starts TensorFlow and Keras once per process, quietly and with fixed seeds."""

import os
import random
import re
import signal
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from typing import TypeVar

from experiments.config import Problem, Refused, RunFailed
from experiments.system import imports, resources

# Variables whose flags TensorFlow reads at its first operation; it ends the process if it cannot use one of them.
FLAGS = ("TF_XLA_FLAGS", "XLA_FLAGS", "TF_DETERMINISTIC_OPS")
PATIENCE = 60  # seconds for the sum of two numbers
T = TypeVar("T")


def start(threads: int | str, precision: str, seed: int) -> int:
    """Import TensorFlow and make it deterministic.

    Args:
        threads: Processor threads for TensorFlow's operations, or ``"auto"``: one per core that this process may use.
        precision: Keras's dtype policy.
        seed: Of Python's, NumPy's and TensorFlow's random numbers.

    Returns:
        The number of threads.

    Raises:
        Refused: It cannot use the flags of the environment.
    """
    imports.import_keras()
    refuse_wrong_flags()
    import keras
    import tensorflow as tf

    count = resources.available_cores() if threads == "auto" else int(threads)
    try:
        tf.config.threading.set_intra_op_parallelism_threads(count)
        tf.config.threading.set_inter_op_parallelism_threads(count)
    except RuntimeError as error:  # TensorFlow runs already: an earlier run of this process started it
        if tf.config.threading.get_intra_op_parallelism_threads() != count:
            raise RunFailed("runtime.threads cannot change within one process; start a process per run") from error
    if tf.config.list_physical_devices("GPU"):
        tf.config.experimental.enable_op_determinism()  # on processors operations are deterministic anyway
    keras.utils.clear_session()
    keras.config.set_floatx("float32")  # keras.json may say otherwise, of this and the next two
    keras.config.set_epsilon(1e-7)
    keras.config.set_image_data_format("channels_last")
    keras.config.set_dtype_policy(precision)
    keras.utils.set_random_seed(seed)
    return count


def is_running() -> bool:
    """Whether TensorFlow has run an operation in this process: it keeps its threads, and has read its flags."""
    import tensorflow as tf

    try:  # a setter: a getter would initialize devices, which a fork must not inherit
        for threads in (1, 0):  # at least one differs from the number that is set; 0 is TensorFlow's default
            tf.config.threading.set_intra_op_parallelism_threads(threads)
    except RuntimeError:
        return True
    return False


@cache
def refuse_wrong_flags() -> None:
    """Have a fork of this process use the flags of the environment, unless TensorFlow has done so here.

    Raises:
        Refused: They ended that process, as they would end this one.
    """
    if not (named := [name for name in FLAGS if os.environ.get(name)]) or is_running():
        return
    import tensorflow as tf

    with tempfile.TemporaryFile() as stderr:
        if (pid := os.fork()) == 0:
            with suppress(BaseException):
                signal.alarm(PATIENCE)
                os.dup2(stderr.fileno(), 2)
                # Without AutoGraph, which writes a file that only the end of a process removes.
                tf.function(lambda: tf.constant(1) + 1, jit_compile=True, autograph=False)()
                next(iter(tf.data.Dataset.range(1)))  # reads the last of the flags
            os._exit(0)
        if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) in (0, -signal.SIGALRM):  # too slow to say
            return
        stderr.seek(0)
        said = stderr.read().decode(errors="replace")
    found = re.search(r"^usage: (?P<why>.*)$", said, re.MULTILINE) or re.search(
        r"^F.*?\] (?P<why>.*)$", said, re.MULTILINE
    )
    why = found["why"] if found else "TensorFlow ended the process"
    raise Refused(Problem(" and ".join(named), f"TensorFlow cannot use these flags ({why}); correct or unset them"))


def without_arrays(build: Callable[[], T]) -> T:
    """Build layers without the arrays of their weights, which may be larger than memory, to learn their shapes.

    Args:
        build: Function that builds the layers; run in a new thread, as in this one Keras would make the arrays later.
    """
    import keras

    def within() -> T:
        with keras.StatelessScope(initialize_variables=False):
            return build()

    state = random.getstate()
    try:
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(within).result()
    finally:
        random.setstate(state)  # Keras draws the seeds of layers from it: the next layers get the usual seeds
