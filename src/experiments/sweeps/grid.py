"""Every combination of a sweep: checked, those that finished before kept, the rest launched, all of them compared."""

import math
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.core.utils import JobReturn
from hydra.errors import OverrideParseException
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf

from experiments.config import Problem, Refused, RunFailed, sweep_values
from experiments.config.checks import find_problems
from experiments.config.fingerprint import config_fingerprint
from experiments.config.overrides import nested_too_deeply
from experiments.config.problems import assign, first_lines, quoted, shown
from experiments.config.schema import Gridded
from experiments.sweeps import foreign, pool, server
from experiments.sweeps.jobs import Job, identify, prepare
from experiments.sweeps.results import as_row, runs_of, show
from experiments.system.terminal import Console, say
from experiments.tracking.provenance import other_machine
from experiments.tracking.sweep_recorder import SweepRecorder
from hydra_plugins.experiments_sweeps import PoolLauncher

if TYPE_CHECKING:
    from experiments.tracking.summary import PastRun
    from hydra_plugins.experiments_sweeps import GridSweeper

# Up to so many runs, the message about a sweep that is too large says how to allow it.
LARGEST_REMEDY = 100_000


def refuse_wrong_settings(sweeper: "GridSweeper") -> None:
    """Check what ``hydra.sweeper`` says.

    Raises:
        Refused: With all problems.
    """
    given = sweeper.params
    params = OmegaConf.to_container(given, resolve=True) if OmegaConf.is_config(given) else given
    settings = {"params": params, "skip_invalid": sweeper.skip_invalid, "max_runs": sweeper.max_runs}
    defaults = {"params": {}, "skip_invalid": False, "max_runs": 1000}
    if problems := find_problems({"hydra": {"sweeper": settings}}, Gridded, {"hydra": {"sweeper": defaults}}):
        raise Refused(problems)
    sweeper.params = params


def sweep(
    sweeper: "GridSweeper", arguments: Sequence[str], launcher: Launcher, context: HydraContext, master: DictConfig
) -> list[JobReturn]:
    """Carry out a sweep.

    Args:
        sweeper: The values of a preset, and what to do about combinations that cannot run.
        arguments: The overrides of the command line.
        launcher: Carries out the runs.
        context: Hydra's.
        master: The config of the sweep itself.

    Raises:
        Refused: A combination cannot run. Nothing was started.
        RunFailed: Runs did not finish. The others did.
    """
    loader = context.config_loader
    overrides = [*preset_overrides(sweeper.params, loader), *arguments]
    parsed = OverridesParser.create(loader).parse_overrides(overrides)
    wanted = combinations(parsed, sweeper.max_runs)
    forks = isinstance(launcher, PoolLauncher)
    jobs = without_repeats(prepare(wanted, loader, master, sweeper.skip_invalid))
    if forks:
        server.start(jobs)
    first, console = jobs[0].config, Console()
    with closing(SweepRecorder(first.tracking, resume=first.resume)) as recorder:
        jobs = identify(jobs)
        return _carry_out(jobs, recorder, launcher, console, overrides, swept(parsed), Path(master.hydra.sweep.dir))


def _carry_out(
    jobs: list[Job],
    recorder: SweepRecorder,
    launcher: Launcher,
    console: Console,
    overrides: Sequence[str],
    values: Mapping[str, str],
    folder: Path,
) -> list[JobReturn]:
    first, forks = jobs[0].config, isinstance(launcher, PoolLauncher)
    fingerprints = [job.fingerprint for job in jobs]
    experiments = list(dict.fromkeys(job.config.tracking.experiment for job in jobs))
    recorder.open(experiments, overrides, values)
    before = recorder.past_runs(fingerprints)
    todo, reasons = what_remains(jobs, before)
    if forks and todo:
        server.refuse_unusable()
    recorder.begin(folder)
    if first.resume:
        threads = pool.threads_each(launcher) if isinstance(launcher, PoolLauncher) else None
        line = _resume_line(len(jobs) - len(todo), reasons, made_elsewhere(jobs, before, threads))
        say(console, line)
    returns: list[JobReturn] = []
    status = "KILLED"
    try:
        if isinstance(launcher, PoolLauncher):
            returns = pool.run(todo, launcher, recorder, console, kept=len(jobs) - len(todo))
        elif todo:
            returns = foreign.launch(launcher, todo, recorder.parent, first.resume)
        status = ""
    finally:
        past = recorder.runs(fingerprints, elsewhere=not forks, interrupted=status == "KILLED")
        runs = runs_of(jobs, past, dict(zip((job.number for job in todo), returns, strict=False)))
        failed = sum(run.status != "FINISHED" for run in runs)
        recorded = recorder.end(status or ("FAILED" if failed else "FINISHED"), [as_row(run) for run in runs])
        show(console, runs, recorder.run_id, recorded)
    if failed:
        raise RunFailed(f"{failed} of {len(runs)} runs did not finish; the same command with resume=true goes on")
    return returns


def preset_overrides(params: Mapping[str, Any], loader: ConfigLoader) -> list[str]:
    """Write the values of a preset, ``hydra.sweeper.params``, as overrides.

    Raises:
        Refused: An override cannot be read, or gives no values.
    """
    overrides, problems = [], list[Problem]()
    for key, value in params.items():
        text = f"{key}={value if isinstance(value, str) else shown(value)}"
        overrides.append(text)
        if what := nested_too_deeply(text):
            problems.append(Problem(f"hydra.sweeper.params.{key}", what))
            continue
        try:
            sweep_values.count(OverridesParser.create(loader).parse_overrides([text])[0])
        except OverrideParseException as error:
            problems.append(
                Problem(
                    f"hydra.sweeper.params.{key}", f"cannot be read: {first_lines(error).partition(' See https')[0]}"
                )
            )
        except Refused as refused:
            problems += [replace(item, where=f"hydra.sweeper.params.{key}", remedy="") for item in refused.problems]
    if problems:
        raise Refused(problems)
    return overrides


def combinations(overrides: Sequence[Override], max_runs: int) -> list[list[str]]:
    """Expand the sweep into one list of overrides per job. A repeated key takes its last value.

    Raises:
        Refused: There are more jobs than `max_runs`, or an override gives no values.
    """
    by_key = {override.get_key_element(): override for override in overrides}
    if problems := [problem for override in by_key.values() for problem in _interval(override)]:
        raise Refused(problems)
    counts = {key: sweep_values.count(override) for key, override in by_key.items()}
    if (number := math.prod(counts.values())) > max_runs:
        largest = sorted((key for key in counts if counts[key] > 1), key=lambda key: -counts[key])
        values = ", ".join(f"{_shown(counts[key])} values of {key}" for key in largest[:4]) + ", …" * bool(largest[4:])
        what = f"the sweep has {_shown(number)} runs ({values}), more than the {max_runs:,} that are allowed"
        remedy = assign("hydra.sweeper.max_runs", number) if number <= LARGEST_REMEDY else ""
        raise Refused(Problem("hydra.sweeper.max_runs", what, remedy))
    values_by_key = [
        [f"{key}={value}" for value in override.sweep_string_iterator()]
        if override.is_sweep_override()
        else [str(override.input_line)]
        for key, override in by_key.items()
    ]
    return [list(job) for job in product(*values_by_key)]


def _shown(number: int) -> str:
    return f"{number:,}" if number < 10**12 else f"10^{math.floor(math.log10(number))}"


def _interval(override: Override) -> Iterator[Problem]:
    interval = override.value()
    if isinstance(interval, IntervalSweep):
        remedy = quoted(f"{override.get_key_element()}={interval.start},{interval.end}")
        yield Problem(override.get_key_element(), "an interval has no values to try one by one", remedy)


def without_repeats(jobs: Sequence[Job]) -> list[Job]:
    """Keep one job per config: the same run twice would count as two seeds."""
    kept: dict[str, Job] = {}
    for job in jobs:
        kept.setdefault(job.config.model_dump_json(), job)
    if repeats := len(jobs) - len(kept):
        print(f"{repeats} of {len(jobs)} combinations repeat another one and are left out", file=sys.stderr)
    return list(kept.values())


def swept(overrides: Sequence[Override]) -> dict[str, str]:
    """The values that are swept, by key, as they were typed."""
    return {
        override.get_key_element(): str(override.input_line).partition("=")[2]
        for override in overrides
        if override.is_sweep_override()
    }


def what_remains(jobs: Sequence[Job], before: Sequence["PastRun"]) -> tuple[list[Job], Counter[str]]:
    """Find the jobs that have to run: those without a finished run of their fingerprint; and why, with how many."""
    todo, reasons = [], Counter[str]()
    by_print: dict[str, set[str]] = {}
    for child in before:
        by_print.setdefault(child.tags.get("fingerprint", ""), set()).add(child.status)
        by_print.setdefault(child.tags.get("fingerprint.config", ""), set())
    for job in jobs:
        statuses = by_print.get(job.fingerprint)
        if statuses and "FINISHED" in statuses:
            continue
        todo.append(replace(job, begun=statuses is not None))
        if statuses is None:
            changed = config_fingerprint(job.config) in by_print
            reasons["ran with other code, data, versions or flags" if changed else "never ran"] += 1
        else:
            reasons["failed before" if "FAILED" in statuses else "interrupted"] += 1
    return todo, reasons


def made_elsewhere(jobs: Sequence[Job], before: Sequence["PastRun"], threads: int | None) -> Counter[str]:
    """Count the kept jobs that another kind of machine ran, by what differs.

    Args:
        jobs: All of the sweep.
        before: The recorded runs.
        threads: How many a job would have here, where its config does not say; None: unknown.
    """
    finished = {child.tags.get("fingerprint"): child for child in before if child.status == "FINISHED"}
    made = Counter[str]()
    for job in jobs:
        if child := finished.get(job.fingerprint):
            own = job.config.runtime.threads
            processor = child.tags.get("hardware.processor", "")
            made[other_machine(processor, child.threads, own if isinstance(own, int) else threads)] += 1
    del made[""]
    return made


def _resume_line(kept: int, reasons: Mapping[str, int], made: Mapping[str, int]) -> str:
    """Such as: 12 kept, 3 never ran, 1 failed before: rerun."""
    again = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
    told = [f"; of those kept, {count} ran {how}" for how, count in made.items()]
    return f"resume: {kept} kept" + (f", {again}: rerun" if again else "") + "".join(told)
