"""Random and aimed attacks on the real command line; counts by exit code.

python tests/fuzz.py [--count 500] [--seed 1] [--out FILE.json]

Random settings and damaged files, and the cases of `attacks.py`. Fails, and prints the input, if
anything ends in a traceback, in exit code 1, in a code that is not documented, in more or less than
one message, or if a control character reaches the terminal.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import sys
import tempfile
import time
import unicodedata
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TextIO

from cifar_cli.cli.app import run
from cifar_cli.config.settings import all_settings

CODES = {0, 2, 3, 4, 5, 6, 7}
# What would be right, but take minutes or gigabytes: settings whose numbers are kept small.
SMALL = {
    "model.width": 8, "data.image_size": 64, "train.epochs": 1, "train.batch_size": 512,
    "data.workers": 0, "runtime.threads": 2, "data.limit_train": 64, "data.limit_val": 64,
}  # fmt: skip
TINY_STEPS = [
    "--data", "shapes", "--device", "cpu", "--set", "model.width=1", "--limit-train", "32",
    "--set", "train.batch_size=16", "--set", "augment.form=tensor", "--set", "optim.max_lr=0.01",
    "--set", "data.image_size=32",
]  # fmt: skip
TINY = [*TINY_STEPS, "--limit-val", "32", "--epochs", "1"]
WORDS = (
    "", "auto", "null", "true", "off", "nan", ".inf", "-.inf", "1e400", "1e-3", "0x1f", "010",
    "1:30", "~", "~no-such-user/x", ".", "/dev/null", "/dev/null/x", "a b", "ü", "\U0001f600", "'",
    '"', "{", "[", "]", "}", ": ", "- ", "#", "&a", "*a", "!!int x", "!!python/name:os.system", "%",
    "|", ">", "\t", "x" * 300, "9" * 400, "9" * 5000, "[" * 2000, "shapes", "cifar10", "cpu", "tpu",
    '"a\\0b"', '"\\ud800"', "a\0b", "\udcff", "\x07", "[red]", "[/red]", "-", "--", "a/" * 2000,
)  # fmt: skip


class Outcome(NamedTuple):
    """How a command ended."""

    code: int | None
    """None: an exception left the program."""
    out: str
    err: str

    @property
    def fault(self) -> str:
        """What is wrong with it, or nothing."""
        messages = self.err.count("Error: ")
        printed = set(self.out + self.err) - {"\n", "\t"}
        raw = sorted(c for c in printed if unicodedata.category(c) == "Cc")
        if self.code is None or "Traceback" in self.err:
            return "a traceback"
        if self.code not in CODES:
            return f"exit code {self.code}"
        if self.code and messages != 1 and "Usage:" not in self.err:
            return f"{messages} messages"
        if raw:
            return f"control characters {raw}"
        return ""


def open_aside(errors: str = "strict") -> TextIO:
    """A file that stands for a stream of the terminal; its `errors` are those of the real one."""
    return tempfile.TemporaryFile("w+", encoding="utf-8", errors=errors)


def attempt(*arguments: object) -> Outcome:
    """Run the real command line within this process, its output put aside."""
    with open_aside() as out, open_aside("backslashreplace") as err:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code: int | None = None
            try:
                code = run([str(argument) for argument in arguments])
            except BaseException as error:
                print(f"Traceback: {type(error).__name__}: {error}", file=err)
        out.seek(0)
        err.seek(0)
        return Outcome(code, out.read(), err.read())


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Other bytes: flipped, cut off, cut out, put in, blanked, or all of them replaced."""
    out = data
    while out == data:  # such as zeros that were blanked
        out = _damaged_once(data, rng)
    return out


def _damaged_once(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        size = len(out)
        place = rng.randrange(size + 1)
        length = rng.choice((1, 2, 8, 100, 4000))
        match rng.randrange(7):
            case 0 | 1:
                for _ in range(rng.choice((1, 3, 30))):
                    if size:
                        out[rng.randrange(size)] ^= 1 << rng.randrange(8)
            case 2:
                del out[place:]
            case 3:
                del out[place : place + length]
            case 4:
                out[place:place] = rng.randbytes(length)
            case 5:
                out[place : place + length] = bytes(min(length, size - place))
            case _:
                out[place:place] = out[:length]
    return bytes(out) if rng.random() < 0.97 else rng.choice((b"", b"\0", rng.randbytes(300)))


def random_value(rng: random.Random, key: str, depth: int = 0) -> str:
    """The YAML text of a value: of the right kind, of another kind, or nonsense."""
    kind = rng.randrange(8)
    if kind <= 1:
        most = SMALL.get(key, 100)
        return str(rng.choice((0, 1, -1, rng.randint(1, most) if most else 0, 2**31, 10**30)))
    if kind == 2:
        return repr(rng.choice((0.0, 0.5, 1.0, -1.5, 1e-300, 1e300, rng.random())))
    if kind <= 5 or depth > 2:
        return rng.choice(WORDS)
    items = [random_value(rng, key, depth + 1) for _ in range(rng.randrange(4))]
    if kind == 6:
        return f"[{', '.join(items)}]"
    return "{" + ", ".join(f"{rng.choice(WORDS[:12])}: {item}" for item in items) + "}"


def random_settings(rng: random.Random) -> dict[str, str]:
    """Dotted keys, most of them known, with random values as YAML text."""
    known = {setting.key: setting.field.default for setting in all_settings()}
    del known["runtime.compile"]  # right, it takes a minute
    chosen = {}
    for _ in range(rng.choice((1, 1, 1, 2, 4, 9))):
        key = rng.choice(list(known))
        if rng.random() < 0.15:
            wrong = (key + "x", key.upper(), key.split(".")[0], rng.choice(WORDS), "a.b.c")
            key = rng.choice(wrong)
        default = known.get(key)
        if (
            isinstance(default, int | float)
            and not isinstance(default, bool)
            and rng.random() < 0.5
        ):
            right = rng.uniform(0, SMALL.get(key, 2 * default))
            chosen[key] = str(round(right)) if isinstance(default, int) else f"{right:.3g}"
        elif default is not None and rng.random() < 0.2:
            chosen[key] = str(default)
        else:
            chosen[key] = random_value(rng, key)
    return chosen


def as_yaml(settings: dict[str, str]) -> str:
    """Dotted keys as a YAML file of one line a section."""
    sections = defaultdict(list)
    for key, value in settings.items():
        section, _, name = key.rpartition(".")
        sections[section].append(f"{name}: {value}")
    lines = [
        "\n".join(items) if not section else f"{section}: {{{', '.join(items)}}}"
        for section, items in sections.items()
    ]
    return "\n".join(lines) + "\n"


def setting_cases(rng: random.Random, folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Kinds of input and command lines, without end."""
    file = folder / "random.yaml"
    while True:
        if rng.random() < 0.25:
            yield "argument", rng.choice(argument_cases(rng.choice(WORDS), str(folder / "run")))
            continue
        settings = random_settings(rng)
        way = rng.choice(("--config", "--recipe", "--set"))
        if way == "--set":
            given = [part for key, value in settings.items() for part in (way, f"{key}={value}")]
        else:
            file.write_bytes(as_yaml(settings).encode(errors="surrogateescape"))
            given = [way, str(file)]
        match rng.randrange(4):
            case 0:  # the flags keep short what would be right, so that other settings are tried
                yield f"train {way}", ["train", *given, *TINY, "--run-dir", str(folder / "r")]
            case 1:
                yield f"find-lr {way}", ["find-lr", *given, "--num-iter", "2"]
            case _:
                yield f"summary {way}", ["summary", *given, "--depth", "1", "--json"]


def argument_cases(word: str, run_dir: str) -> tuple[list[str], ...]:
    """Command lines with one word in many places."""
    return (
        ["summary", "--data", word], ["summary", "--recipe", word], ["summary", "--config", word],
        ["summary", "--set", word], ["summary", "--seed", word], ["summary", "--depth", word],
        ["summary", word], [word], ["recipes", "show", word], ["plot", word],
        ["train", *TINY, "--name", word], ["train", *TINY, "--run-dir", word],
        ["train", *TINY, "--data-dir", word], ["train", *TINY, "--max-lr", word],
        ["train", "--resume", "--run-dir", word, *TINY], ["train", *TINY, "--data", word],
        ["evaluate", word], ["evaluate", "--checkpoint", word],
        ["evaluate", run_dir, "--out", word], ["evaluate", run_dir, "--data", word],
        ["evaluate", run_dir, "--split", word], ["evaluate", run_dir, "--device", word],
        ["evaluate", run_dir, "--data-dir", word], ["misclassified", run_dir, "--n", word],
        ["find-lr", *TINY_STEPS, "--num-iter", word], ["find-lr", "--end-lr", word],
        ["preview-augs", "--index", word], ["recipes", "copy", "demo", word],
    )  # fmt: skip


class Material(NamedTuple):
    """Whole files to damage, and a network that was trained on the images."""

    images: Path
    run: Path
    batches: Path


def make_material(folder: Path) -> Material:
    """Draw images of several formats, train a network on them, and lay out batches."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for split, count in (("train", 9), ("test", 9)):
        for label in ("cat", "dog"):
            place = folder / "images" / split / label
            place.mkdir(parents=True)
            for number in range(count):
                extension = ("png", "jpg", "bmp", "gif", "tif", "webp", "ppm")[number % 7]
                pixels = rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(place / f"{number}.{extension}")
    batches = folder / "batches" / "cifar-10-batches-py"
    batches.mkdir(parents=True)
    for name in (*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"):
        (batches / name).write_bytes(rng.bytes(5000))
    trained = attempt("train", *TINY, "--data", folder / "images", "--run-dir", folder / "run")
    assert trained.code == 0, trained.err
    return Material(folder / "images", folder / "run", batches)


def file_cases(
    rng: random.Random, folder: Path, material: Material
) -> Iterator[tuple[str, list[str]]]:
    """Kinds of damaged file and command lines that read them, without end."""
    images, trained, batches = material
    best = ["evaluate", "--checkpoint", str(trained / "checkpoints" / "best.pt"), "--quiet"]
    while True:
        copy = folder / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        kind = rng.choice(("checkpoint", "resume", "image", "yaml", "batches", "run file", "cache"))
        if kind == "image":
            shutil.copytree(images, copy)
            damage(rng, [p for p in copy.rglob("*.*") if p.is_file()])
            yield kind, [*best, "--data", str(copy)]
        elif kind == "cache":
            home = Path(os.environ["CIFAR_RESNET_HOME"])
            attempt(*best)
            damage(rng, [p for p in home.rglob("*") if p.is_file()])
            yield kind, best
        elif kind == "batches":
            shutil.copytree(batches.parent, copy)
            damage(rng, list(copy.rglob("*batch*/*")))
            yield kind, [*best, "--data", str(copy)]
        elif kind == "yaml":
            copy.mkdir()
            source = trained / "config.yaml"
            (copy / "c.yaml").write_bytes(damaged(source.read_bytes(), rng))
            yield kind, ["summary", "--depth", "1", "--json", "--config", str(copy / "c.yaml")]
        else:
            shutil.copytree(trained, copy)
            if kind == "run file":
                damage(rng, [p for p in copy.iterdir() if p.is_file()])
                yield kind, [rng.choice(("plot", "evaluate")), str(copy), "--quiet"]
            elif kind == "resume":
                damage(rng, sorted((copy / "checkpoints").glob("*.pt")))
                yield kind, ["train", "--resume", "--run-dir", str(copy), "--quiet"]
            else:
                damage(rng, [copy / "checkpoints" / "last.pt"])
                checkpoint = str(copy / "checkpoints" / "last.pt")
                yield kind, ["evaluate", "--checkpoint", checkpoint, "--quiet"]


def damage(rng: random.Random, files: list[Path]) -> None:
    """Damage one of the files; in a new one, as compiled code is mapped into this process."""
    file = rng.choice(sorted(files))
    content, mode = file.read_bytes(), file.stat().st_mode
    file.unlink()
    file.write_bytes(damaged(content, rng))
    file.chmod(mode)


def count_outcomes(
    cases: Iterator[tuple[str, list[str]]], count: int | None, report: Callable[[str], None]
) -> dict[str, Counter[int]]:
    """Exit codes by kind of input; `report` is told of each fault, with its input."""
    counts: dict[str, Counter[int]] = defaultdict(Counter)
    for number, (kind, arguments) in enumerate(islice(cases, count)):
        outcome = attempt(*arguments)
        counts[kind][-1 if outcome.code is None else outcome.code] += 1
        if outcome.fault:
            report(f"{kind} {number}: {outcome.fault}: {arguments}\n{outcome.err}")
            for file in (Path(a) for a in arguments if a.endswith(".yaml")):
                report(repr(file.read_bytes()[:2000]))
    return counts


def table(counts: dict[str, Counter[int]]) -> str:
    """Counts as a Markdown table."""
    codes = sorted({code for by_code in counts.values() for code in by_code})
    lines = [
        "| input | " + " | ".join(f"exit {code}" for code in codes) + " |",
        "|---|" + "---:|" * len(codes),
    ]
    for kind in sorted(counts):
        lines.append(f"| {kind} | " + " | ".join(str(counts[kind][code]) for code in codes) + " |")
    total = [str(sum(by_code[code] for by_code in counts.values())) for code in codes]
    return "\n".join([*lines, "| all | " + " | ".join(total) + " |"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=500, help="of settings, of files, of entries")
    parser.add_argument("--only", metavar="PART", help="run one part, such as `names`")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="write the counts as JSON")
    arguments = parser.parse_args()
    out = arguments.out.resolve() if arguments.out else None
    faults: list[str] = []

    def report(text: str) -> None:
        faults.append(text)
        print(text, file=sys.stderr, flush=True)

    started = time.perf_counter()
    warnings.simplefilter("error")
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        folder = Path(name)
        os.environ["CIFAR_RESNET_HOME"] = str(folder / "home")
        os.environ["HOME"] = name  # what ~ is
        # Where a random setting asks for CIFAR-10, nothing is to be downloaded.
        os.environ["CIFAR_RESNET_MIRROR"] = ""
        import cifar_cli.data.sources.download

        cifar_cli.data.sources.download.SOURCES = ()  # type: ignore[assignment]
        import attacks

        material, rng = make_material(folder), random.Random(arguments.seed)
        images, trained, fewer = material.images, material.run, arguments.count * 2 // 5
        every_name = attacks.name_cases(folder, images, trained, TINY, TINY_STEPS)
        found = {
            what: count_outcomes(cases, count, report)
            for what, cases, count in (
                ("settings and arguments", setting_cases(rng, folder), arguments.count),
                ("files", file_cases(rng, folder, material), arguments.count),
                ("checkpoint entries", attacks.entry_cases(rng, folder, trained), arguments.count),
                ("small files", attacks.small_file_cases(rng, folder, trained), fewer),
                ("bounds", attacks.bound_cases(rng), fewer),
                ("names", every_name, None),
            )
            if arguments.only in (None, what)
        }
    for what, counts in found.items():
        print(f"\n{what}, seed {arguments.seed}:\n\n{table(counts)}")
    print(f"\n{len(faults)} faults, {time.perf_counter() - started:.0f} s")
    if out:
        plain = {
            what: {kind: dict(sorted(c.items())) for kind, c in sorted(counts.items())}
            for what, counts in found.items()
        }
        report_ = {"seed": arguments.seed, "faults": len(faults), "parts": plain}
        out.write_text(json.dumps(report_, indent=2) + "\n", encoding="utf-8")
    if faults:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
