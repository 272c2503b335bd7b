"""Has launchers of other packages carry out jobs: Hydra's basic one, joblib, Ray, submitit."""

import importlib
import signal
import sys
from collections.abc import Sequence
from typing import Any, cast

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from omegaconf import OmegaConf

from experiments.config import RunFailed
from experiments.sweeps.jobs import Job


def launch(launcher: Launcher, jobs: Sequence[Job], parent: str, resume: bool) -> list[JobReturn]:
    """Carry out jobs, recorded beneath a parent run.

    Args:
        launcher: Of another package.
        jobs: What to run.
        parent: What they name as their parent; empty: nothing is recorded.
        resume: Whether a job that has finished meanwhile is kept.

    Raises:
        RunFailed: The launcher gave up.
    """
    try:
        if type(launcher).__name__ == "RayLauncher":
            _start_ray(launcher)
        return list(launcher.launch([[*job.overrides, *_ours(parent, resume)] for job in jobs], initial_job_idx=0))
    except Exception as error:  # a worker was killed, for one, or the cluster is not there
        why = " ".join(str(error).split())[:400] or type(error).__name__
        raise RunFailed(f"the launcher gave up: {why}; the same command with resume=true goes on") from error
    finally:
        if ray := sys.modules.get("ray"):
            ray.shutdown()  # ends the runs of an interrupted sweep, which Ray would otherwise start anew


def _ours(parent: str, resume: bool) -> list[str]:
    return [f"tracking.parent={parent}", f"resume={str(resume).lower()}"] if parent else []


def _start_ray(launcher: Any) -> None:
    """Start Ray before the launcher does: the launcher sets a memory size, which Ray refuses when joining a cluster."""
    handler = signal.getsignal(signal.SIGTERM)
    settings = OmegaConf.to_container(launcher.ray_cfg.init, resolve=True)
    importlib.import_module("ray").init(**cast(dict[str, Any], settings))
    signal.signal(signal.SIGTERM, handler)  # Ray's own would abort us in the middle of the record
