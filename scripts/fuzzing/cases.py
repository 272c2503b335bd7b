"""All cases: which command meets what. Case N of a seed is always the same one."""

import hypothesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from fuzzing import files, records, surroundings, words
from fuzzing.case import COMMANDS, Case

# The first example is the simplest one.
SECOND = settings(
    max_examples=2, database=None, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
)


def draw_case(seed: int, number: int) -> Case:
    """Draw a case; it depends on nothing but the two numbers and the strategies."""
    drawn: list[Case] = []

    @hypothesis.seed(seed * 1_000_003 + number)
    @SECOND
    @given(cases())
    def collect(case: Case) -> None:
        drawn.append(case)

    collect()
    return drawn[-1]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """A command with one kind of trouble, and sometimes another."""
    kind = draw(st.sampled_from(KINDS))
    case: Case = draw(kind())
    command, arguments, made, environment = case.command, case.arguments, case.files, case.environment
    folder, closed = case.folder, case.closed
    if draw(st.integers(0, 9)) == 0 and not environment:
        environment = draw(surroundings.environments)
    if draw(st.integers(0, 19)) == 0:
        folder = draw(surroundings.folders)
    if draw(st.integers(0, 29)) == 0:
        closed = draw(surroundings.closed)
    if draw(st.integers(0, 24)) == 0:
        arguments = [*arguments, *draw(words.drawn_from("options"))]
    early = any(name.startswith(surroundings.READ_EARLY) for name in environment)
    fresh = early or draw(st.integers(0, 24)) == 0
    return Case(command, arguments, made, environment, folder, closed, case.store, fresh)


def trainings() -> st.SearchStrategy[Case]:
    """Runs that are right, most of them."""
    return st.tuples(words.right_overrides(), st.integers(0, 2)).map(
        lambda drawn: Case("run", [*words.BASE, *drawn[0]], store=drawn[1] > 0)
    )


@st.composite
def overridden(draw: st.DrawFn) -> Case:
    """Runs with overrides that may be wrong."""
    base = [*words.BASE, "data.limit=100", "epochs=1"]
    odd = draw(st.lists(words.light_overrides("run"), min_size=1, max_size=3))
    return Case("run", [*base, *odd], [["evilmod.py", "evil"]], store=draw(st.booleans()))


@st.composite
def optional(draw: st.DrawFn) -> Case:
    """Commands with options of Hydra."""
    command = draw(st.sampled_from(COMMANDS))
    base = [*words.BASE, "data.limit=100", "epochs=1"] if command == "run" else []
    options = draw(words.drawn_from("options"))
    odd = draw(st.lists(words.light_overrides(command), max_size=1))
    return Case(command, [*base, *options, *odd], store=draw(st.booleans()))


@st.composite
def sweeps(draw: st.DrawFn) -> Case:
    """Sweeps of few runs, or of none, or of too many."""
    base = ["-m", *words.BASE, "data.limit=100", "epochs=1"]
    base += draw(st.sampled_from([[], ["hydra/launcher=basic"], ["hydra/launcher=basic"]]))
    odd = draw(st.lists(words.light_overrides("run"), max_size=1)) if draw(st.booleans()) else []
    return Case("run", [*base, *draw(words.sweep_values()), *odd], [["evilmod.py", "evil"]], store=draw(st.booleans()))


@st.composite
def config_folders(draw: st.DrawFn) -> Case:
    """Runs with a config folder."""
    made, arguments = draw(files.yaml_folders())
    sweep = ["-m", "hydra/launcher=basic"] if draw(st.integers(0, 9)) == 0 else []
    return Case("run", [*sweep, *arguments], made, store=draw(st.booleans()))


@st.composite
def with_data(draw: st.DrawFn) -> Case:
    """Runs with a data file."""
    made, arguments = draw(files.data_files())
    return Case("run", arguments, made, store=draw(st.booleans()))


@st.composite
def with_images(draw: st.DrawFn) -> Case:
    """Image files."""
    made, arguments = draw(files.image_files())
    return Case("predict", [*arguments, *draw(words.asked("predict"))[:1]], made, store=True)


@st.composite
def looking(draw: st.DrawFn) -> Case:
    """Commands that look at records, with arguments that may be wrong."""
    command = draw(st.sampled_from(COMMANDS[1:]))
    odd = draw(st.lists(words.light_overrides(command), max_size=1))
    return Case(command, [*draw(words.asked(command)), *odd], store=draw(st.integers(0, 9)) > 0)


@st.composite
def at_spoiled_records(draw: st.DrawFn) -> Case:
    """Commands that look at records that were tampered with."""
    command, arguments = draw(records.usual())
    return Case(command, arguments, draw(records.tampered()), store=True)


@st.composite
def surrounded(draw: st.DrawFn) -> Case:
    """Commands that are right, in odd surroundings."""
    command, arguments = draw(records.usual())
    return Case(command, arguments, [["../file", "text", "x"]], draw(surroundings.environments), store=True)


# As often as it stands here.
KINDS = (
    [trainings] * 3 + [overridden] * 7 + [optional] * 2 + [sweeps] * 2 + [config_folders] * 4 + [with_data] * 3
    + [with_images] * 2 + [looking] * 4 + [at_spoiled_records] * 5 + [surrounded] * 2
)  # fmt: skip
