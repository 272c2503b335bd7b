"""Starts TensorFlow and Keras: once, quietly, without what Keras imports on the off chance, and seeded."""

import gc
import os
import random
import re
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TypeVar

from experiments.config import Problem, Refused, RunFailed

# Keras imports these only to accept their objects; that is a third of its import time, and nobody needs them here.
OPTIONAL_IMPORTS = ("matplotlib", "pandas", "sklearn")
# Variables of the environment by which Keras ends training early: a config says how long it takes.
LIMITS = ("KERAS_MAX_EPOCHS", "KERAS_MAX_STEPS_PER_EPOCH")
# Which of the system's groups (cgroups) this process is in, and where these are; and the file in a group's folder that
# has its limit of memory, in bytes: in version 2, and in version 1, where groups for memory have a folder of their own.
OWN_GROUPS, GROUPS = "/proc/self/cgroup", "/sys/fs/cgroup"
MEMORY_LIMITS = {"": "memory.max", "memory": "memory.limit_in_bytes"}
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
    import_keras()
    refuse_wrong_flags()
    import keras
    import tensorflow as tf

    count = available_cores() if threads == "auto" else int(threads)
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


def available_cores() -> int:
    """Count the cores that this process may use: its affinity and a container's limit (cgroup) restrict them."""
    import joblib  # only where it is needed: it takes a fifth as long to import as Hydra

    try:
        return int(joblib.cpu_count())
    except ValueError as error:
        name = "LOKY_MAX_CPU_COUNT"  # the only setting that it reads
        what = f"got {os.environ.get(name)}, expected a number of cores; correct or unset it"
        raise Refused(Problem(name, what)) from error


def available_memory() -> int:
    """Bytes of memory that this process may use: what is free, at most the limit of a group that it is in (cgroup)."""
    import psutil

    found = [int(psutil.virtual_memory().available)]
    with suppress(OSError):  # another system than Linux
        for line in Path(OWN_GROUPS).read_text().splitlines():
            _, kind, group = line.split(":", 2)
            # A group has the limits of those around it, too. In a container, some of these folders cannot be seen.
            for place in (Path(group), *Path(group).parents) if kind in MEMORY_LIMITS else ():
                with suppress(OSError, ValueError):  # it has no limit
                    found.append(int(Path(GROUPS, kind, str(place).lstrip("/"), MEMORY_LIMITS[kind]).read_text()))
    return min(found)


def is_running() -> bool:
    """Whether TensorFlow has run an operation in this process: it keeps its threads, and has read its flags."""
    from tensorflow.python.eager import context

    return bool(context.context()._initialized)  # its public functions look for devices, which a fork must not inherit


def import_keras() -> None:
    """Import Keras on TensorFlow, whatever ``~/.keras/keras.json`` says, and keep their start-up notes to ourselves.

    Raises:
        Refused: Keras cannot read its ``keras.json``.
    """
    if "keras" in sys.modules:
        return
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for name in LIMITS:
        os.environ.pop(name, None)
    with imports(), _quiet_stderr(), _readable_settings(), _hidden(*OPTIONAL_IMPORTS):
        import keras  # noqa: F401
        import tensorflow as tf

        tf.get_logger().setLevel("ERROR")


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
        build: Is called in a thread of its own: in this one, Keras would make the arrays later.
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
        random.setstate(state)  # Keras draws the seeds of layers from it: those that follow have the same ones as ever


@contextmanager
def imports() -> Iterator[None]:
    """Keep the garbage collector from looking for garbage among what is imported, now and later: a fifth of the time.

    Nothing of it is garbage, and it is most of what there is.
    """
    _name_home()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()


def _name_home() -> None:
    """Name a home folder for a user who has none, as in containers: MLflow and Keras look for it when imported."""
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = "/nonexistent"  # no folder that others can write: programs take settings from it


@contextmanager
def _readable_settings() -> Iterator[None]:
    """Name Keras's ``keras.json`` where Keras cannot be imported because of it."""
    try:
        yield
    except Exception as error:
        if not Path(traceback.extract_tb(error.__traceback__)[-1].filename).match("keras/src/backend/config.py"):
            raise
        file = Path(os.environ.get("KERAS_HOME", "~/.keras"), "keras.json")
        raise Refused(Problem(str(file), f"Keras cannot read it: {error}; correct it or remove it")) from error


@contextmanager
def _hidden(*modules: str) -> Iterator[None]:
    """Make imports of modules that are not loaded yet fail, as if they were not installed."""
    hidden = [name for name in modules if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


@contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Hold back what C++ code writes to stderr; show it if the block fails."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as buffer:
        os.dup2(buffer.fileno(), 2)
        try:
            yield
        except BaseException:
            buffer.seek(0)
            os.write(kept, buffer.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
