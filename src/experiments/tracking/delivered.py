"""How much of a journal the stores have: ``delivered.json`` beside it."""

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from experiments.tracking.journal import DELIVERED, JOURNAL, open_file, read


@dataclass(frozen=True)
class Delivered:
    """What a store has of a journal.

    Attributes:
        run_id: MLflow's id of the run there.
        bytes: Up to which byte of the journal its events were applied.
        ending: A digest of what is before that byte: another copy of the journal may have taken its place.
        complete: All of a journal that was closed.
        rejected: Why events were refused for good.
        trouble: Why the rest could not be delivered, the last time.
        gone: The run was deleted there, or the store is another one now.
    """

    run_id: str = ""
    bytes: int = 0
    ending: str = field(default="", compare=False)
    complete: bool = False
    rejected: tuple[str, ...] = ()
    trouble: str = ""
    gone: bool = False


def delivered_to(folder: Path, store: str) -> Delivered:
    """What a store has of a journal, by the store's name."""
    return delivered(folder).get(store, Delivered())


def delivered(folder: Path) -> dict[str, Delivered]:
    """What each store has of a journal, by the store's name; nothing, where that cannot be read."""
    try:
        with open_file(folder / DELIVERED) as file:
            written = json.load(file)
        found = {
            store: Delivered(**{**state, "rejected": tuple(state["rejected"])}) for store, state in written.items()
        }
        return {store: _checked(folder, state) for store, state in found.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}


def _checked(folder: Path, state: Delivered) -> Delivered:
    """The state, corrected if the journal was replaced by another copy, or has grown, since it was delivered."""
    if state.ending != _ending(folder, state.bytes):
        return replace(state, bytes=0, ending="", complete=False)
    return replace(state, complete=state.complete and not any(read(folder, state.bytes)))


def _ending(folder: Path, size: int) -> str:
    """A digest of the last line among the first `size` bytes of a journal, which has its time."""
    with open_file(folder / JOURNAL) as file:
        file.seek(max(size - 200, 0))
        return hashlib.sha256(file.read(min(size, 200))).hexdigest()[:16] if size else ""


def note_delivered(folder: Path, store: str, state: Delivered) -> None:
    """Replace what a store has of a journal."""
    new = folder / f"{DELIVERED}.new"
    states = {**delivered(folder), store: replace(state, ending=_ending(folder, state.bytes))}
    new.unlink(missing_ok=True)  # in a foreign folder it may be a link
    with new.open("x") as file:
        file.write(json.dumps({name: asdict(each) for name, each in states.items()}))
    new.replace(folder / DELIVERED)
