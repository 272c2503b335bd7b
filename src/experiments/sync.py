"""Send records to MLflow that were not delivered yet: ``python -m experiments.sync``."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from experiments.cli.command import command
from experiments.config import Problem, Refused, RunFailed, SyncConfig
from experiments.config.problems import visible
from experiments.config.schema import Tracking
from experiments.system.terminal import Console, say
from experiments.tracking import index, journal, leftovers
from experiments.tracking.store import FOLDER, refuse_unusable
from experiments.tracking.summary import PastRun, summary


def sync(config: SyncConfig) -> None:
    """List what waits, or send it: what is in the named folders, or everything that waits, or with `all` everything."""
    console = Console()
    found = sorted(_wanted(config), key=lambda run: (run.opened.get("time", 0), run.folder))
    if not found:
        more = "nothing waits to be sent; all=true looks through all that was recorded here"
        say(console, "nothing is recorded here" if config.all else more)
        return
    if config.list:
        for run in found:
            say(console, _described(run, config.tracking))
        return
    if config.tracking.uri:
        refuse_unusable(config.tracking)
    lost = 0
    for run, said, is_sent in leftovers.send(found, config.tracking, again=config.all):
        lost += not is_sent
        say(console, f"{_name(run)}: {said}")
    if lost:
        kept = "they are kept, and the same command tries again; tracking.uri=URL sends them to another address"
        raise RunFailed(f"{lost} of {len(found)} records were not sent; {kept}")


def _wanted(config: SyncConfig) -> Iterator[PastRun]:
    folders = [folder for name in config.folders for folder in _named(name)] or index.waiting()
    if config.all and not config.folders:
        folders += _below(FOLDER)
    for folder in dict.fromkeys(folder.absolute() for folder in folders):
        run = summary(folder)
        if run.opened:
            yield run


def _named(name: str) -> Sequence[Path]:
    """The journals in a folder, at whatever depth.

    Raises:
        Refused: There is no such folder, or no journal in it.
    """
    if not Path(name).is_dir():
        raise Refused(Problem("folders", f"there is no folder {name}"))
    if not (found := _below(Path(name))):
        raise Refused(Problem("folders", f"nothing is recorded in {name}: no {journal.JOURNAL} is in it"))
    return found


def _below(folder: Path) -> Sequence[Path]:
    return [file.parent for file in folder.rglob(journal.JOURNAL)]


def _described(run: PastRun, tracking: Tracking) -> str:
    state = run.delivered_to(leftovers.target_name(run, tracking))
    under_way = journal.at_work(run.folder)
    sent = f"sent{leftovers.is_store_missing(run, tracking) * ', to a store that is not there any more'}"
    why = "it is under way" if under_way else state.trouble or (sent if state.complete else "it was not sent yet")
    rejected = f"; rejected: {'; '.join(state.rejected)}" if state.rejected else ""
    return f"{_name(run)}: {run.status if under_way or run.status != 'RUNNING' else 'died'}, {why}{rejected}"


def _name(run: PastRun) -> str:
    return f"{visible(str(run.opened.get('name', '')))} ({run.output})"


main = command("sync", SyncConfig, positional="folders")(sync)

if __name__ == "__main__":
    main()
