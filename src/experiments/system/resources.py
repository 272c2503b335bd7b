"""Memory, processor cores and GPUs that this process may use."""

import os
import re
import shutil
import subprocess
from contextlib import suppress
from ctypes.util import find_library
from importlib.util import find_spec
from pathlib import Path

from experiments.config import Problem, Refused

# Which of the system's groups (cgroups) this process is in, and where these are; and the file in a group's folder that
# has its limit of memory, in bytes: in version 2, and in version 1, where groups for memory have a folder of their own.
OWN_GROUPS, GROUPS = "/proc/self/cgroup", "/sys/fs/cgroup"
MEMORY_LIMITS = {"": "memory.max", "memory": "memory.limit_in_bytes"}


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


def visible_gpus() -> list[str]:
    """List the GPUs that TensorFlow can use in this process, as CUDA names them. TensorFlow is not imported."""
    gpus = _listed_gpus()
    return gpus if gpus and _has_cuda() else []


def _has_cuda() -> bool:
    """Whether TensorFlow finds CUDA: in NVIDIA's packages beside it, or in the system. Without, it uses no GPU."""
    spec = find_spec("nvidia")
    folders = spec.submodule_search_locations or () if spec else ()
    return any(Path(folder, "cuda_runtime").is_dir() for folder in folders) or find_library("cudart") is not None


def _listed_gpus() -> list[str]:
    if (named := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name for name in named.split(",") if name not in ("", "-1")]
    if shutil.which("nvidia-smi") is None:
        return []
    try:
        command = ["nvidia-smi", "--list-gpus"]
        listed = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    except (subprocess.SubprocessError, OSError):  # there is no driver, or no GPU
        return []
    return [str(number) for number, _ in enumerate(re.findall(r"^GPU \d+:", listed, re.MULTILINE))]
