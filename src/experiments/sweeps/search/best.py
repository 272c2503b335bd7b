"""The best config of a search as a file that ``experiment=`` accepts."""

import pickle

import yaml

from experiments.cli.checks import choices
from experiments.sweeps.jobs import Job

# What a preset does not say: presets themselves, where runs are recorded, and how they are carried out.
LEFT_OUT = {"experiment", "search", "tracking", "trust", "resume", "runtime"}


def preset(job: Job, head: str) -> str:
    """Write the config of a job as a preset, with all of its values: it does not depend on the files that it came from.

    Args:
        job: The job.
        head: What the first line says of it.
    """
    composed = pickle.loads(job.composed)  # noqa: S301 - it is ours
    groups = [{f"override /{group}": name} for group, name in choices(composed) if group not in LEFT_OUT]
    values = job.config.model_dump(mode="json", exclude=LEFT_OUT, exclude_unset=True)
    return f"# @package _global_\n# {head}\n{yaml.safe_dump({'defaults': groups, **values}, sort_keys=False)}"
