"""Write doc/reliability.md from a run of the fault tests, the soak and the fuzzing.

    python doc/generate_reliability.py --faults faults.json --soak soak.json --fuzz fuzz.json

`make reliability` makes the three files and calls this.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import yaml

HERE = Path(__file__).parent
TABLE = HERE.parent / "tests" / "faults" / "faults.yaml"
NO_TEST, FAILS = "**no test**", "**fails**"
HEAD = """# Reliability

`make reliability` writes this page from the outcome of the tests. The tests named in each row
inject its fault: real signals to real processes, a real full file system, real corrupt files, a
real server on the local machine. If that is not possible, as for an infinite gradient, one call is
replaced. *Kept* means that `last.pt` and `best.pt` load, and are as before or newer. Numbers are
exit codes (see [commands.md](commands.md)).

Machine: {machine}, {cores} cores, Python {python}, torch {torch}.
"""


def lines(
    faults: list[dict[str, Any]], soak: dict[str, Any], fuzz: dict[str, Any]
) -> Iterator[str]:
    """The document, line by line."""
    yield HEAD.format(
        machine=f"{platform.system()} on {platform.machine()}",
        cores=os.cpu_count(),
        python=platform.python_version(),
        torch=torch.__version__,
    )
    tests = {test["test"] for test in faults}
    failed = {test["test"] for test in faults if test["outcome"] == "failed"}
    skipped = {test["test"] for test in faults if test["outcome"] == "skipped"}
    seconds = sum({test["test"]: test["seconds"] for test in faults}.values())
    yield (
        f"{len(tests)} tests, {len(failed)} failed, {len(skipped)} skipped, in {seconds:.0f} s.\n"
    )
    for part, rows in yaml.safe_load(TABLE.read_text(encoding="utf-8")).items():
        yield f"## {part}\n"
        yield "| # | fault | expected | result | tests |"
        yield "|---|---|---|---|---|"
        for number, (inject, expect) in rows.items():
            own = [test for test in faults if number in test["faults"]]
            yield f"| {number} | {inject} | {expect} | {verdict(own)} | {names(own)} |"
        yield ""
    yield "## Soak\n"
    yield (
        f"`make soak`: one run of {soak['epochs']} epochs was killed {soak['kills']} times by "
        f"SIGKILL, {soak['during_a_save']} of them while a file was being written, and resumed "
        f"each time. The last kill was in epoch {soak['reached_by_the_last_kill'][0]}. "
        f"Final weights, optimiser, RNG state, LR trace and metrics, compared with a run that was "
        f"never killed: **{'bit-identical' if soak['equal'] else 'NOT identical'}**. Each epoch is "
        f"in `metrics.csv` once: {'yes' if soak['each_epoch_once'] else 'NO'}. "
        f"{soak['seconds']:.0f} s in all.\n"
    )
    yield (
        f"A run of two epochs was also stopped at each of the {soak['calls']} calls that "
        "create, move, sync or remove a file, once by SIGKILL and once by a full disk, and "
        f"resumed: {len(soak['faults_at_calls'])} faults. Each run resumes in the same "
        "folder, with bit-identical weights.\n"
    )
    yield "## Attacks\n"
    yield from fuzz_lines(fuzz)


def verdict(tests: list[dict[str, Any]]) -> str:
    """One word for all tests of a fault."""
    outcomes = {test["outcome"] for test in tests}
    if not outcomes:
        return NO_TEST
    if "failed" in outcomes:
        return FAILS
    skipped = sum(test["outcome"] == "skipped" for test in tests)
    return f"holds ({skipped} of {len(tests)} tests skipped)" if skipped else "holds"


def names(tests: list[dict[str, Any]]) -> str:
    """Test functions with the number of their cases."""
    counts: dict[str, int] = {}
    for test in tests:
        path, _, name = test["test"].partition("::")
        key = f"`{Path(path).stem}`: {name.split('[')[0].removeprefix('test_').replace('_', ' ')}"
        counts[key] = counts.get(key, 0) + 1
    return "; ".join(f"{key} ({n})" if n > 1 else key for key, n in counts.items())


def fuzz_lines(fuzz: dict[str, Any]) -> Iterator[str]:
    """Tables of counts by exit code."""
    yield (
        f"`make fuzz` (seed {fuzz['seed']}), all through the real command line: random settings "
        "and arguments; randomly damaged files; checkpoints with a valid seal and one entry "
        "replaced; other content in the small files of a run; settings at and beyond their bounds; "
        "names of classes, files, runs and recipes with control characters, markup or bytes that "
        "are not UTF-8. Exit code 1, a traceback, more than one message, or a control character "
        f"in the output would be an internal error: there were {fuzz['faults']}.\n"
    )
    counts: dict[str, dict[str, int]]
    for part, counts in fuzz["parts"].items():
        codes = sorted({code for kind in counts.values() for code in kind}, key=int)
        yield f"| {part} | {' | '.join(codes)} | all |"
        yield f"|---|{'---|' * (len(codes) + 1)}"
        for kind, found in counts.items():
            cells = " | ".join(str(found.get(code, 0)) for code in codes)
            yield f"| {kind} | {cells} | {sum(found.values())} |"
        whole = [sum(found.get(code, 0) for found in counts.values()) for code in codes]
        yield f"| all | {' | '.join(map(str, whole))} | {sum(whole)} |\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("faults", "soak", "fuzz"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    arguments = parser.parse_args()
    parts = [
        json.loads(path.read_text(encoding="utf-8"))
        for path in (arguments.faults, arguments.soak, arguments.fuzz)
    ]
    text = "\n".join(lines(*parts)).rstrip() + "\n"
    (HERE / "reliability.md").write_text(text, encoding="utf-8")
    if any(word in text for word in (NO_TEST, FAILS)):
        sys.exit("doc/reliability.md names faults that are not withstood.")


if __name__ == "__main__":
    main()
