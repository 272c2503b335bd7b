"""Send records to MLflow that were not delivered yet: ``python -m experiments.sync``."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from omegaconf import DictConfig

from experiments.cli import check_command, command
from experiments.config import Problem, Refused, RunFailed, SyncConfig
from experiments.config.problems import visible
from experiments.terminal import Console, say
from experiments.tracking import index, journal, leftovers
from experiments.tracking.journal import Summary
from experiments.tracking.store import FOLDER, refuse_unusable


def sync(composed: DictConfig) -> None:
    """List what waits, or send it: what is named, or everything that was not delivered, or with `all` everything."""
    config = check_command(composed, SyncConfig)
    console = Console()
    found = sorted(_wanted(config), key=lambda run: run.opened.get("time", 0))
    if not found:
        say(console, "nothing waits: everything that is recorded here was sent")
        return
    if config.list:
        for run in found:
            say(console, _described(run))
        return
    if config.tracking.uri:
        refuse_unusable(config.tracking)
    lost = 0
    for run, said, is_sent in leftovers.send(found, config.tracking, again=config.all):
        lost += not is_sent
        say(console, f"{_name(run)}: {said}")
    if lost:
        raise RunFailed(
            f"{lost} of {len(found)} records were not sent; they are kept, and the same command tries again"
        )


def _wanted(config: SyncConfig) -> Iterator[Summary]:
    folders = list(_below(config.folders)) if config.folders else index.waiting()
    if config.all and not config.folders:
        folders += _below([str(FOLDER)])
    for folder in dict.fromkeys(folder.absolute() for folder in folders):
        run = journal.summary(folder)
        if run.opened and (config.all or not run.delivered.complete):
            yield run


def _below(folders: Sequence[str]) -> Iterator[Path]:
    """The journals in folders, at whatever depth.

    Raises:
        Refused: There is no such folder, or no journal in it.
    """
    for name in folders:
        if not Path(name).is_dir():
            raise Refused(Problem("folders", f"there is no folder {name}"))
        yield from (file.parent for file in Path(name).rglob(journal.JOURNAL))


def _described(run: Summary) -> str:
    state = run.delivered
    under_way = journal.at_work(run.folder)
    why = "it is under way" if under_way else state.trouble or ("sent" if state.complete else "it was not sent yet")
    rejected = f"; rejected: {'; '.join(state.rejected)}" if state.rejected else ""
    return f"{_name(run)}: {run.status if under_way or run.status != 'RUNNING' else 'died'}, {why}{rejected}"


def _name(run: Summary) -> str:
    return f"{visible(str(run.opened.get('name', '')))} ({run.output})"


main = command("sync", positional="folders")(sync)

if __name__ == "__main__":
    main()
