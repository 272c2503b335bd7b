"""Try commands with odd input: `python scripts/fuzz.py SEED COUNT`.

Each case is a command with the files, records and variables that it meets, drawn by `fuzzing/cases.py`; whatever they
are, the command has to end as `fuzzing/oracle.py` says. `--only N` repeats case N of a seed and shows what it writes;
`--corpus` tries the cases too that are kept in `tests/fuzz_corpus.jsonl`, because they went wrong once.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from fuzzing.case import Case
from fuzzing.cases import draw_case
from fuzzing.oracle import judge
from fuzzing.runner import Outcome, carry_out, prepare

CORPUS = Path(__file__).resolve().parents[1] / "tests" / "fuzz_corpus.jsonl"


def main() -> None:
    """Draw the cases, run them, and say which went wrong; exit status 1 if any did."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("seed", type=int)
    parser.add_argument("count", type=int)
    parser.add_argument("--only", type=int, help="only this case, with all that it writes; -N: case N of the corpus")
    parser.add_argument("--start", type=int, default=0, help="the number of the first case")
    parser.add_argument("--corpus", action="store_true", help="also the cases that went wrong once")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="cases at a time")
    parser.add_argument("--keep", type=Path, help="a file to which the cases that went wrong are added")
    arguments = parser.parse_args()
    began, folder = time.monotonic(), Path(tempfile.mkdtemp(prefix="fuzz-"))
    try:
        prepared = prepare(folder)
        print(f"prepared in {time.monotonic() - began:.0f} s", flush=True)
        failed, table = 0, defaultdict[tuple[str, int], list[float]](list)
        for number, case, outcome in carry_out(_chosen(arguments), prepared, arguments.jobs):
            table[case.command, outcome.status].append(outcome.seconds)
            problems = judge(case, outcome)
            if problems or arguments.only is not None:
                _show(arguments.seed, number, case, outcome, problems)
            if problems:
                failed += 1
                if arguments.keep:
                    with arguments.keep.open("a") as file:
                        file.write(case.as_json() + "\n")
            if arguments.only is not None:
                print(f"--- stdout\n{outcome.stdout!a}\n--- stderr".replace("\\n", "\n"))
                print(ascii(outcome.stderr).replace("\\n", "\n"))
            shutil.rmtree(outcome.place, ignore_errors=True)
        _summary(table, failed, time.monotonic() - began)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    sys.exit(1 if failed else 0)


def _chosen(arguments: argparse.Namespace) -> Iterator[tuple[int, Case]]:
    """Cases with their numbers, which are negative for those that are kept."""
    kept = dict(enumerate(map(Case.from_json, CORPUS.read_text().splitlines()), 1))
    if arguments.only is not None:
        yield arguments.only, kept[-arguments.only] if arguments.only < 0 else draw_case(arguments.seed, arguments.only)
        return
    if arguments.corpus:
        yield from ((-number, case) for number, case in kept.items())
    for number in range(arguments.start, arguments.start + arguments.count):
        yield number, draw_case(arguments.seed, number)


def _show(seed: int, number: int, case: Case, outcome: Outcome, problems: list[str]) -> None:
    print(f"case {number}: {case}")
    if case.files:
        print(f"  files: {ascii(case.files)[:1500]}")
    cost = f"{outcome.seconds:.1f} s, {outcome.memory / 1e6:.0f} MB"
    print(f"  folder {case.folder!a}, exit status {outcome.status}, {cost}")
    for problem in problems:
        print(f"  wrong: {problem!a}")
    print(f"  repeat: python scripts/fuzz.py {seed} 1 --only {number}", flush=True)


def _summary(table: dict[tuple[str, int], list[float]], failed: int, seconds: float) -> None:
    print(f"\n{'command':12}{'exit':>5}{'cases':>7}{'median s':>10}{'longest s':>11}")
    for (command, status), taken in sorted(table.items()):
        print(f"{command:12}{status:5}{len(taken):7}{sorted(taken)[len(taken) // 2]:10.1f}{max(taken):11.1f}")
    print(f"{sum(map(len, table.values()))} cases in {seconds:.0f} s; {failed} went wrong")


if __name__ == "__main__":
    main()
