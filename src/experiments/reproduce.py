"""Train a recorded run again and prove that it comes out the same: ``python -m experiments.reproduce run=ID``."""

import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from experiments.cli.command import command
from experiments.config import Problem, Refused, ReproduceConfig, RunFailed
from experiments.config.fingerprint import environment_flags, source_digest, without_packages
from experiments.config.problems import visible
from experiments.config.schema import Tracking
from experiments.data import load
from experiments.engine.checkpoints import Checkpoints
from experiments.engine.listener import Listener
from experiments.run import Trained, train
from experiments.system.terminal import Console, say
from experiments.tracking.provenance import environment, hardware, origin, working_tree
from experiments.tracking.recorder import Recorder
from experiments.tracking.rerun import checked_config, trusted_then
from experiments.tracking.runs import finished, look_up
from experiments.tracking.summary import PRUNED


def reproduce(config: ReproduceConfig) -> None:
    """Say what differs from when the run was made, train it again, and compare."""
    if problems := without_packages(config.trust):
        raise Refused(problems)
    stored = finished(look_up(config.run, config.tracking, trust=config.trust))
    again = checked_config(stored, config.data.path)
    dataset = load(again.data, again.seed, again.trust, again.task.name)
    recorded = stored.tags.get("dataset.digest")
    if dataset.digest != recorded:
        what = f"{dataset.source} is not what the run was trained on: sha256 {dataset.digest[:12]}…, then {recorded}"
        raise Refused(Problem("data", f"{what}; name the file that was used", "data.path=FILE"))
    console = Console()
    say(console, f"run {stored.run_id}  {stored.name}")
    if config.run == "best":
        say(console, f"  chosen {stored.chosen}")
    for what, said in conditions(stored.tags, stored.environment, trusted_then(stored)):
        say(console, f"  {what:9} {said}")
    with tempfile.TemporaryDirectory() as folder:
        trained = train(again, dataset, Recorder(again), Checkpoints(Path(folder)), _StopAsRecorded(stored.tags))
    judge(console, stored.histories, stored.tags.get("weights.digest"), trained)


class _StopAsRecorded(Listener):
    """Stops training after the epoch after which a search stopped the run."""

    def __init__(self, tags: Mapping[str, str]) -> None:
        self._pruned = tags.get(PRUNED)

    def epoch(self, number: int, of: int, metrics: Mapping[str, float]) -> bool:
        return str(number) == self._pruned


def compile_as_recorded(model: Any, run: str, uri: str | None = None, trust: Sequence[str] = ()) -> None:
    """Give a loaded Keras model the loss and the metrics of its run, so that `evaluate` gives the recorded measures.

    Args:
        model: As Keras or MLflow loaded it.
        run: The run's id.
        uri: The store; None: ``$MLFLOW_TRACKING_URI``, else ``mlruns/mlflow.db``.
        trust: Packages whose classes the run's config may name.

    Raises:
        Refused: There is no such run, or it did not finish.
    """
    from experiments.engine.models import compile_as  # it imports TensorFlow

    recorded = finished(look_up(run, Tracking(enabled=True, uri=uri), trust=trust))
    compile_as(checked_config(recorded), model)


def conditions(tags: Mapping[str, str], packages: str, trusted: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Compare what a result may depend on, then and now: code, data, versions, flags, processor.

    Args:
        tags: Tags of the recorded run.
        packages: Its ``environment.txt``.
        trusted: The packages that were trusted then.
    """
    yield "code", _code(tags, trusted)
    yield "data", f"the same: {tags['dataset']}, sha256 {tags['dataset.digest'][:12]}…"
    now = origin(Tracking(enabled=False), (), "")
    versions = {key.partition(".")[2]: value for key, value in tags.items() if key.startswith("version.")}
    changed = {key: then for key, then in versions.items() if now.get(f"version.{key}") != then}
    differ = "; ".join(f"{key} {then} then, {now.get(f'version.{key}', 'none')} now" for key, then in changed.items())
    others = _packages(packages) ^ _packages(environment())
    count = len({line.partition("==")[0] for line in others} - set(changed))
    also = f"; {count} other packages differ" if count and packages else ""
    same = ", ".join(f"{key} {versions[key]}" for key in ("tensorflow", "keras", "numpy") if key in versions)
    yield "versions", (differ or f"the same: {same}") + also
    yield "flags", _then_and_now(tags.get("flags", "") or "none", " ".join(environment_flags()) or "none")
    then, processor = tags.get("hardware.processor", "unknown"), hardware()["hardware.processor"]
    yield "processor", _then_and_now(then, processor)


def _then_and_now(then: str, now: str) -> str:
    return f"the same: {now}" if then == now else f"{then} then, {now} now"


def _code(tags: Mapping[str, str], trusted: Sequence[str]) -> str:
    commit, dirty = tags.get("git.commit", ""), tags.get("git.dirty") == "true"
    of_commit = f"commit {commit[:12]}" + (" with code/uncommitted.patch of its artifacts" if dirty else "")
    if source_digest(trusted) == tags.get("fingerprint.code"):
        tree = working_tree()
        elsewhere = commit and tree and tree.commit != commit
        return "the same" + (
            f", though the run was of {of_commit}" if elsewhere else f": {of_commit}" if commit else ""
        )
    return "differs from that of the run" + (f", which was of {of_commit}" if commit else "")


def _packages(text: str) -> set[str]:
    return {line for line in text.splitlines() if line and not line.startswith(("#", "experiments=="))}


def judge(
    console: Console, recorded: Mapping[str, Sequence[tuple[int, float]]], digest: str | None, trained: Trained
) -> None:
    """Print that the two runs are identical.

    Args:
        console: Where.
        recorded: (step, value) of each metric.
        digest: Of the recorded run's weights; None: it was not recorded.
        trained: The run that was trained again.

    Raises:
        RunFailed: They differ (a table of the differences is printed first), or the record lacks the weights' digest.
    """
    again = _measured(trained)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("metric", "epoch", "recorded", "now", "difference"):
        table.add_column(column, justify="left" if column == "metric" else "right", no_wrap=True)
    total = different = 0
    for name in dict.fromkeys([*recorded, *again]):
        then, now = dict(recorded.get(name, ())), again.get(name, {})
        for step in sorted({*then, *now}):
            total += 1
            a, b = then.get(step), now.get(step)
            if a is None or b is None or not (a == b or (math.isnan(a) and math.isnan(b))):
                different += 1
                gap = "" if a is None or b is None or not math.isfinite(b - a) else f"{b - a:.2g}"
                table.add_row(
                    Text(visible(name)), str(step + 1), *("none" if x is None else repr(x) for x in (a, b)), gap
                )
    weights = "not recorded" if digest is None else "the same" if digest == trained.weights_digest else "different"
    if different:
        console.print(table)
    if different or weights == "different":
        raise RunFailed(f"it differs: {different} of {total} values, and the weights are {weights}")
    if digest is None:
        raise RunFailed(
            f"all {total} values are the same, but the weights cannot be compared: the record lacks the tag "
            "weights.digest"
        )
    say(console, f"identical: all {total} values; weights the same, sha256 {digest[:12]}…")


def _measured(trained: Trained) -> Mapping[str, Mapping[int, float]]:
    """Every metric by step, as it would be recorded."""
    by_epoch = {name: dict(enumerate(map(float, values))) for name, values in trained.history.items()}
    last = len(trained.history["loss"]) - 1
    return by_epoch | {name: {last: float(value)} for name, value in trained.measures.items()}


main = command("reproduce", ReproduceConfig)(reproduce)

if __name__ == "__main__":
    main()
