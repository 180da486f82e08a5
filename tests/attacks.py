"""Cases for `fuzz.py` that are aimed, not random: entries, bounds, small files and names.

Each generator yields a kind of input and a command line that meets it; see `fuzz.count_outcomes`.
"""

from __future__ import annotations

import copy
import io
import math
import random
import shutil
import warnings
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import annotated_types
import torch

from cifar_cli.config.settings import TAGS, Setting, all_settings
from cifar_cli.training.sealed import seal

Case = tuple[str, list[str]]


def quantised() -> torch.Tensor:
    """A tensor of a kind that torch is giving up, and says so."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)


REPLACEMENTS: tuple[Any, ...] = (
    None, True, 0, 1, -1, 2**62, math.nan, math.inf, "text", "x" * 100_000, b"bytes", [], [1, "a"],
    {}, {"a": 1}, (), torch.zeros(0), torch.full((3,), math.nan), torch.ones(2, 2).to_sparse(),
    torch.zeros(2, dtype=torch.complex64), torch.zeros(3, device="meta"), torch.tensor(7),
    quantised(), torch.zeros(2, dtype=torch.bool),
)  # fmt: skip
SMALL_FILES = (
    "metrics.csv", "steps.csv", "status.json", "result.json", "env.json", "events.jsonl",
    "config.yaml",
)  # fmt: skip
NAMES = (
    "\x1b[2J", "\x1b]0;title\x07", "\x9b31m", "a\rb", "a\nb", "a\tb", "\x07", "\x7f",
    "\x85", "\x08\x08", "[bold]x[/bold]", "[/red]", "[link=x]y[/link]", ":dog:",
    ":warning:", "\\[x]", "{x}", "%s%n", "$x^2$", "$\\frac$", "\\alpha", "_^", "<b>&amp;",
    "'\"`", "a b", " a", "a ", "-a", "--help", "#a", "ü", "u\u0308", "\u202eabc",
    "\u2066a", "\u200b", "\ufeff", "\U0001f436", "日本", "مرحبا", "\u0301",
    "\udcff", "a\udc80b", "\udcc3", "x" * 200, "~", "~a", "CON", "NUL.txt", "*", "?",
)  # fmt: skip


def entries(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of the parts of a tree of dictionaries and lists; of long ones the first few."""
    if path:
        yield path
    items = list(document.items() if isinstance(document, dict) else enumerate(document))
    for key, value in items[: 20 if len(path) < 2 else 6]:
        if isinstance(value, dict | list) and value:
            yield from entries(value, (*path, key))
        else:
            yield (*path, key)


def replaced(document: Any, path: tuple[Any, ...], value: Any, remove: bool) -> Any:
    """A copy of the tree with one entry replaced or removed."""
    changed = copy.deepcopy(document)
    place = changed
    for key in path[:-1]:
        place = place[key]
    if remove:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return changed


def entry_cases(rng: random.Random, folder: Path, run: Path) -> Iterator[Case]:
    """Checkpoints with a right seal and one entry that is something else."""
    name = "last.pt"
    document = torch.load(run / "checkpoints" / name, weights_only=True)
    by_part: dict[str, list[tuple[Any, ...]]] = defaultdict(list)
    for path in entries(document):
        by_part[str(path[1] if path[0] == "training" and len(path) > 1 else path[0])].append(path)
    target = folder / "entries"
    while True:
        part = rng.choice(list(by_part))
        path = rng.choice(by_part[part])
        changed = replaced(document, path, rng.choice(REPLACEMENTS), rng.random() < 0.05)
        buffer = io.BytesIO()
        torch.save(changed, buffer)
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(run, target)
        (target / "checkpoints" / name).write_bytes(seal(buffer.getvalue()))
        (target / "checkpoints" / "previous.pt").unlink(missing_ok=True)
        if rng.random() < 0.7:
            resume = ["train", "--resume", "--run-dir", str(target), "--quiet", "--epochs", "2"]
            yield part, [*resume, "--allow-changes"]
        else:
            yield part, ["evaluate", str(target), "--checkpoint", "last", "--quiet"]


def small_file_cases(rng: random.Random, folder: Path, run: Path) -> Iterator[Case]:
    """Small files of a run with other content: not numbers, far too long, deep, of another kind."""
    target = folder / "small"
    while True:
        name = rng.choice(SMALL_FILES)
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(run, target)
        file = target / name
        content = file.read_text(encoding="utf-8")
        match rng.randrange(9):
            case 0:
                number = rng.choice(("nan", "inf", "1e999", "-", "x" * 20))
                content = content.replace("0.", number, 1)
            case 1:
                half = len(content) // 2
                content = content[:half] + "9" * 200_000 + content[half:]
            case 2:
                content = "[" * 100_000
            case 3:
                content = '{"a":' * 5_000 + "1" + "}" * 5_000
            case 4:
                content = rng.choice(("", "null", "[]", "{}", "1", '"x"', "\0", "\ufeff" + content))
            case 5:
                content = content + content
            case 6:
                content += rng.choice(("garbage\n", "nan,nan,nan\n", "1,2\n", ",,,,,,,,,\n"))
            case 7:
                content = "\n".join(content.splitlines()[:1])
            case _:
                content = content.replace(rng.choice(sorted(set(content))), "\udcff")
        file.write_bytes(content.encode("utf-8", "surrogateescape"))
        resume = ["train", "--resume", "--run-dir", str(target), "--quiet"]
        commands = (
            ["plot", str(target)],
            ["evaluate", str(target), "--quiet"],
            resume,
            [*resume, "--epochs", "2", "--allow-changes"],
        )
        yield name, rng.choice(commands)


def bounds() -> Iterator[tuple[Setting, float]]:
    """Numeric settings of every class of the sections, with each of their bounds."""
    for setting in all_settings():
        for limit in setting.field.metadata:
            if isinstance(limit, annotated_types.Ge):
                yield setting, limit.ge  # type: ignore[misc]
            elif isinstance(limit, annotated_types.Gt):
                yield setting, limit.gt  # type: ignore[misc]
            elif isinstance(limit, annotated_types.Le):
                yield setting, limit.le  # type: ignore[misc]
            elif isinstance(limit, annotated_types.Lt):
                yield setting, limit.lt  # type: ignore[misc]


def bound_cases(rng: random.Random) -> Iterator[Case]:
    """Settings at a bound, just beyond it, and far beyond every bound."""
    known = list(bounds())
    numeric = [s for s in all_settings() if isinstance(s.field.default, float)]
    far = ("nan", ".inf", "-.inf", "1e308", "-1e308", "1e-320", "9" * 30, "-1", "0", "1.5", "2**3")
    while True:
        if rng.random() < 0.6:
            setting, limit = rng.choice(known)
            value = str(rng.choice((limit, limit - 1, limit + 1, limit * 1.0001 + 1e-9, -limit)))
        else:
            setting = rng.choice([*numeric, *(setting for setting, _ in known)])
            value = rng.choice(far)
        section = setting.key.split(".")[0]
        sets = ["--set", f"{setting.key}={value}"]
        if setting.variant:
            sets += ["--set", f"{section}.{TAGS[section]}={setting.variant}"]
        yield section, ["summary", "--depth", "1", "--json", *sets]


def name_cases(
    folder: Path, images: Path, run: Path, tiny: list[str], steps: list[str]
) -> Iterator[Case]:
    """Names of classes, files, runs and recipes, through every command that meets them."""
    for number, name in enumerate(NAMES):
        named = name.replace("/", "|")  # what a file can be called
        place = folder / "names" / str(number)
        data = place / "images"
        shutil.copytree(images, data)
        for split in ("train", "test"):
            (data / split / "dog").rename(data / split / f"d{named}")
            first = min((data / split / "cat").iterdir())
            first.rename(first.with_name(f"f{named}.png"))
        own = place / f"r{named}"
        shutil.copytree(run, own)
        recipe = place / f"c{named}.yaml"
        shutil.copy(run / "config.yaml", recipe)
        trained = place / "run"
        few = ["--num-iter", "18"]  # the fewest that there may be
        commands = [
            ["train", *tiny, "--data", str(data), "--run-dir", str(trained)],
            ["evaluate", str(trained), "--out", str(place / "eval")],
            ["evaluate", str(trained), "--json"],
            ["misclassified", str(trained), "--out", str(place / "wrong")],
            ["misclassified", str(trained), "--json"],
            ["preview-augs", "--data", str(data), "--out", str(place / "augs")],
            ["find-lr", *steps, "--data", str(data), *few, "--out", str(place / "lr")],
            ["doctor", "--data", str(data), "--run-dir", str(own)],
            ["plot", str(own)],
            ["plot", str(own), "--json"],
            ["summary", "--depth", "1", "--recipe", str(recipe)],
            ["recipes", "copy", "demo", str(place / f"k{named}.yaml")],
            ["train", *tiny, "--recipe", str(recipe), "--run-dir", str(place / f"n{named}")],
            ["evaluate", name], ["train", "--resume", "--name", name, *tiny], ["plot", f"no{name}"],
            ["recipes", "show", name], ["summary", "--set", f"seed={name}"], [name],
        ]  # fmt: skip
        broken = place / "broken"
        shutil.copytree(data, broken)
        (broken / "train" / "cat" / f"f{named}.png").write_bytes(b"not an image")
        commands.append(["evaluate", str(trained), "--data", str(broken)])
        for command in commands:
            yield command[0] if command[0] != name else "a word", command
