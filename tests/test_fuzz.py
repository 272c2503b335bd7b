"""Commands with odd input end as they should: drawn cases, and those that went wrong once."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"
sys.path.insert(0, str(SCRIPTS))

from fuzzing.case import Case  # noqa: E402
from fuzzing.cases import draw_case  # noqa: E402
from fuzzing.oracle import judge  # noqa: E402
from fuzzing.runner import Outcome, state  # noqa: E402


def outcome_of(place: Path, status: int, stdout: str = "", stderr: str = "") -> Outcome:
    """An outcome of a command that has left what is below a folder."""
    for folder in ("out", "a/b/work", "a/b/tmp"):
        (place / folder).mkdir(parents=True)
    (place / "out/stdout").write_text(stdout)
    (place / "out/stderr").write_text(stderr)
    return Outcome(place, place / "a/b/work", state(place), {}, status, seconds=1.0)


def test_a_case_depends_on_seed_and_number_only() -> None:
    first = [draw_case(3, number).as_json() for number in (0, 7, 8)]
    assert [draw_case(3, number).as_json() for number in (8, 7, 0)] == first[::-1]
    assert len(set(first)) == 3
    assert Case.from_json(first[1]).as_json() == first[1]


WRONG = [
    (2, "", "error: epochs: got 0", []),
    (2, "", "epochs: got 0", ["refused without a message"]),
    (2, "", "error: x\n" * 41, ["a refusal of 41 lines"]),
    (2, "", "error: \x1b[2J", ["control characters are written: ['\\x1b']"]),
    (2, "", "error: http://user:s3kr1tPW@host", ["a password is shown"]),
    (1, "", "error: x\nTraceback (most recent call last):\nKeyError: 3", ["a traceback: KeyError: 3"]),
    (1, "", "", ["exit status 1 without a cause"]),
    (0, "recorded as run 1", "", ["exit status 0, but nothing is recorded"]),
    (130, "", "", ["exit status 130"]),
    (-11, "", "", ["exit status -11"]),
]


@pytest.mark.parametrize(("status", "stdout", "stderr", "expected"), WRONG)
def test_the_oracle_finds_what_is_wrong(
    status: int, stdout: str, stderr: str, expected: list[str], tmp_path: Path
) -> None:
    assert judge(Case("run", ["epochs=0"]), outcome_of(tmp_path, status, stdout, stderr)) == expected


def test_the_oracle_finds_files_where_none_belong(tmp_path: Path) -> None:
    outcome = outcome_of(tmp_path, 0, "{}")
    for name in ("mlruns/x", "x", "../tmp/x", "page.html"):
        file = tmp_path / "a/b/work" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    wrong = judge(Case("compare", ["format=json", "report=page.html"]), outcome)
    assert [problem.rpartition(" ")[2] for problem in wrong if "outside" in problem] == [
        "'tmp/x'", "'work/mlruns'", "'work/mlruns/x'", "'work/x'",
    ]  # fmt: skip


def test_foreign_code_is_noticed(tmp_path: Path) -> None:
    outcome = outcome_of(tmp_path, 2, "", "error: x")
    outcome.canary.write_text("imported\n")
    assert judge(Case("run", []), outcome) == ["foreign code was run: ['imported']"]


def test_the_corpus_says_what_was_wrong() -> None:
    for line in (SCRIPTS.parent / "tests" / "fuzz_corpus.jsonl").read_text().splitlines():
        assert Case.from_json(line).wrong, json.loads(line)


def test_drawn_cases_and_those_that_went_wrong_once_end_as_they_should() -> None:
    command = [sys.executable, str(SCRIPTS / "fuzz.py"), "12", "3", "--corpus"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
