"""Every command and every Python line that README and docs tell people to run, run."""

import json
import os
import re
import shlex
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from textwrap import indent
from typing import Any, NamedTuple

import numpy as np
import pytest

from tests.prepared import Prepared, environment

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "docs/results.md", "docs/sweeps.md", "docs/scaling.md", "docs/performance.md", "CONTRIBUTING.md")
PAGES += tuple(sorted({str(page.relative_to(ROOT)) for page in (ROOT / "docs").rglob("*.md")} - {*PAGES}))
TEXTS = {page: (ROOT / page).read_text() for page in PAGES}
PROGRAMS = r"(?:[A-Z_]+=\S+ )*(?:python|mlflow|make|ray|ssh|export|source|pip)(?= )"
# What no test of this file runs, by how it begins, and why.
ELSEWHERE = {
    "make run": "tests/test_makefile.py",
    "make ui": "tests/test_makefile.py",
    "make server": "tests/test_server.py",
    "make test": "it is what runs this test",
    "make launchers": ".ci/run",
    "make notebooks": ".ci/run",
    "make check": ".ci/run",
    "make format": "it would change the checkout",
    "make VENV=build/": ".ci/run",
    "make help": "test_make_targets_exist",
    "pip freeze": "it is for an upgrade",
    "pip install -r lowest.txt": "it makes another environment",
    "source .venv/bin/activate": "what it activates is what runs this test",
    "python scripts/": "they take minutes to hours; test_scripts_exist looks for them and for what they are asked",
    "EXPERIMENTS_PICTURES=": "it would change the pictures",
    "python -m experiments.run -m hydra/launcher=joblib": "tests/sweeps/test_launchers.py",
    "python -m experiments.run -m hydra/launcher=ray": "tests/sweeps/test_launchers.py",
    "python -m experiments.run -m hydra/launcher=submitit": "there is no SLURM here; the page says so",
    "pip install hydra-submitit-launcher": "it is not one of the pinned packages; tried by hand",
    "export": "for the cluster of tests/sweeps/test_launchers.py",
    "ray start": "tests/sweeps/cluster.py",
    "ssh": "there is no other machine",
    "mlflow db upgrade": "there is no newer version to upgrade to",
    "python -m experiments.run optimizer=adma": "tests/cli/test_cli.py",
    "python -m experiments.sync /copied/outputs": "tests/test_sync.py",
    "python -m experiments.sync FOLDER": "tests/test_sync.py",
    'python -c "import hydra"': "it is what commands were compared with",
}  # fmt: skip


class Line(NamedTuple):
    page: str
    command: str

    @property
    def elsewhere(self) -> bool:
        return any(self.command.startswith(beginning) for beginning in ELSEWHERE)


def commands() -> Iterator[Line]:
    """The commands of all pages, in their order and once: in blocks, fenced or indented, and within sentences."""
    seen = set[str]()
    for page, text in TEXTS.items():
        fenced = re.sub(
            r"^```sh\n(.*?)^```", lambda block: indent(block[1], " " * 4), text, flags=re.MULTILINE | re.DOTALL
        )
        joined = re.sub(r"\\\n +", "", fenced)
        for found in re.finditer(rf"^    (?:\$ )?({PROGRAMS}.*)$|`({PROGRAMS} [^`]+)`", joined, re.MULTILINE):
            command = re.split(r"  +", found[1] or found[2])[0]  # what follows says what it is for
            if "…" not in command and command not in seen:
                seen.add(command)
                yield Line(page, command)


LINES = list(commands())
RUN = [line for line in LINES if not line.elsewhere]
SCRIPTS = {line.command for line in LINES if line.command.startswith("python scripts/")}
TARGETS = {line.command.split()[1] for line in LINES if re.match(r"make [a-z]+", line.command)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the commands are run, in their order; `mine.npz` and a small MNIST lie there."""
    place = tmp_path_factory.mktemp("readme")
    random = np.random.default_rng(0)
    labels = np.arange(600) % 10
    images = random.integers(0, 256, (600, 28, 28), dtype=np.uint8)
    arrays = {"x_train": images[:500], "y_train": labels[:500], "x_test": images[500:], "y_test": labels[500:]}
    np.savez(place / "mine.npz", **arrays)
    return place


@pytest.fixture
def run(folder: Path, prepared: Prepared) -> Callable[..., Any]:
    """Run a module or a file in the folder, with nothing set."""
    return lambda *words: prepared(*words, cwd=folder, env=environment())


def recorded(folder: Path, sql: str) -> str:
    with closing(sqlite3.connect(folder / "mlruns" / "mlflow.db")) as connection:
        return str(connection.execute(sql).fetchone()[0])


def filled_in(words: str, folder: Path) -> str:
    """Put in the ids of what was recorded, and the data that these tests train on."""
    if "ID" in words:
        last = "SELECT run_uuid FROM runs WHERE status = 'FINISHED' AND run_uuid {} IN "
        last += "(SELECT run_uuid FROM tags WHERE key = 'sweep') ORDER BY start_time DESC"
        words = (
            words.replace("sweep=ID", f"sweep={recorded(folder, last.format(''))}") if "sweep=ID" in words else words
        )
        words = re.sub(r"\b(RUN_ID|ID)\b", recorded(folder, last.format("NOT")), words)
    return words.replace("mnist@", "digits@")


def made_small(name: str, arguments: list[str]) -> list[str]:
    """The same command on few images of the digits that need no download, for one epoch, and with fewer runs."""
    chosen = {argument.partition("=")[0] for argument in arguments}
    if name == "run" and "--help" not in chosen:
        sizes = {"data.validation_size=10000": ["data.validation_size=100"], "data.validation_size=1000": []}
        arguments = [
            small
            for item in arguments
            for small in sizes.get(item, [] if item.startswith("epochs") else [item])
        ] + ["epochs=1"]  # fmt: skip
        if not chosen & {"data", "experiment"}:
            arguments += ["data=digits"] if "model=lenet5" not in arguments else ["data=npz", "data.path=mine.npz"]
        fewer = {
            "rmsprop,adam,sgd": "rmsprop,sgd",
            "seed=0,1,2,3,4": "seed=0,1",
            "seed=0,1,2": "seed=0,1",
            "range(8)": "range(2)",
            "[512],[256,128]": "[512]",
            "n_trials=40": "n_trials=3",
            "n_trials=20": "n_trials=3",
        }
        for many, few in fewer.items():
            arguments = [item.replace(many, few) for item in arguments]
    return ["test=10:30" if item == "test=100:120" else item for item in arguments]


def test_there_are_commands() -> None:
    assert {match[1] for line in RUN if (match := re.match(r"python -m experiments\.(\w+)", line.command))} == {
        "run", "compare", "reproduce", "promote", "predict", "sync",
    }  # fmt: skip
    assert len([line for line in RUN if line.page == "README.md"]) >= 15
    assert len([line for line in RUN if line.page != "README.md"]) >= 10
    assert all(any(line.command.startswith(beginning) for line in LINES) for beginning in ELSEWHERE), "not in the pages"


@pytest.mark.parametrize("line", RUN, ids=[f"{page} {command}" for page, command in RUN])
def test_command(folder: Path, run: Callable[..., Any], line: Line) -> None:
    words = shlex.split(filled_in(line.command, folder))
    if "serve" in words:
        serve_and_ask(words, folder)
        return
    assert words[:2] == ["python", "-m"]
    name = words[2].removeprefix("experiments.")
    done = run(words[2], *made_small(name, words[3:]))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


def serve_and_ask(words: list[str], folder: Path) -> None:
    """Serve a model as the page says, but on another port, and have it classify an image."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    settings = dict(word.split("=", 1) for word in words[: words.index("mlflow")])
    command = [sys.executable, "-m", *words[len(settings) :], "--port", str(port)]
    env = environment(**settings, PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}")  # as `activate` does
    silent: Any = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}  # a pipe that is not read fills up
    with subprocess.Popen(command, cwd=folder, env=env, start_new_session=True, **silent) as server:
        try:
            end = time.monotonic() + 180
            image = np.zeros((1, 8, 8, 1)).tolist()
            request = urllib.request.Request(
                f"http://127.0.0.1:{port}/invocations",
                json.dumps({"inputs": image}).encode(),
                {"Content-Type": "application/json"},
            )
            while True:
                try:
                    with urllib.request.urlopen(request, timeout=60) as answer:
                        [probabilities] = json.load(answer)["predictions"]
                    break
                except urllib.error.HTTPError:
                    raise
                except OSError:
                    assert server.poll() is None
                    assert time.monotonic() < end, "it does not answer"
                    time.sleep(0.2)
        finally:
            os.killpg(server.pid, signal.SIGKILL)
    assert len(probabilities) == 10
    assert sum(probabilities) == pytest.approx(1, abs=1e-4)


BLOCKS = {page: re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL) for page, text in TEXTS.items()}


@pytest.mark.parametrize("page", [page for page, blocks in BLOCKS.items() if blocks])
def test_python_lines(folder: Path, prepared: Prepared, page: str) -> None:
    """All blocks of a page, one after the other, in one program, without MLflow's bars where it copies a model."""
    program = folder.parent / "program.py"
    small = re.sub(
        r"experiments\.(train|sweep)\(", r'experiments.\1("data=digits", "epochs=1", ', "\n".join(BLOCKS[page])
    )
    program.write_text(filled_in(small, folder))
    done = prepared(str(program), cwd=folder, env=environment(MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR="false"))
    assert (done.returncode, done.stderr) == (0, "")


def test_nothing_lies_beside_the_records(folder: Path) -> None:
    """MLflow makes a store of its own in the folder where it is told of none."""
    if not (folder / "mlruns").exists():
        pytest.skip("no command was run")
    assert {file.name for file in folder.iterdir()} - {"report.html"} == {"mlruns", "mine.npz"}


def test_python_stands_in_blocks() -> None:
    """Where a test runs it."""
    assert not [
        found for text in TEXTS.values() for found in re.findall(r"`(?:mlflow|keras)\.\w[\w.]*\([^`]*\)`", text)
    ]


def test_scripts_exist() -> None:
    assert SCRIPTS
    for command in SCRIPTS:
        script, *arguments = shlex.split(command)[1:]
        text = (ROOT / script).read_text()
        names = [word for word in arguments if not word.isdigit() and not word.isupper()]
        assert all(f'"{name}"' in text or f"def {name}(" in text for name in names), command


def test_make_targets_exist() -> None:
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {"run", "ui", "test", "check", "help"} <= TARGETS
    assert all(re.search(rf"^  make {target} ", listed, flags=re.MULTILINE) for target in TARGETS)


def test_links_lead_somewhere() -> None:
    for page, text in TEXTS.items():
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
            if "://" not in target:
                assert ((ROOT / page).parent / target).exists(), (page, target)
