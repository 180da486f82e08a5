"""Another system's training script against recipes here: same images, same threads, interleaved.

python benchmarks/peers/compare.py PEER.yaml --script FILE --data FOLDER [--recipe fast90 ...]
    [--runs 3] [--peer-runs 1] [--peer-epochs N ...] [--threads 2] [--out build/peers]

PEER.yaml says what the script reads, how it is cut short and how its output is read; the script
itself is fetched by whoever measures. Runs that are complete under --out are not run again, and are
refused where they are of other settings, images or another script.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import yaml

from cifar_cli.config import load_config
from cifar_cli.data.sources.load import load_dataset
from cifar_cli.data.splits import Splits
from cifar_cli.data.types import Dataset
from cifar_cli.experiments.bench import BenchRun, bench, interleaved, plan, spread
from cifar_cli.storage import write_json

HERE = Path(__file__).parent
ORDER = 0  # seed of the order in which a peer gets the images


def train_test_pt(dataset: Dataset, folder: Path) -> None:
    """Write cifar10/train.pt and test.pt: images uint8 (N, 32, 32, 3), labels, class names.

    Both in an order drawn at random, like CIFAR-10's own: of a folder's, class by class, the first
    images, from which scripts take their whitening, would all be of one class.
    """
    place = folder / "cifar10"
    place.mkdir()
    for split in ("train", "test"):
        images = getattr(dataset, split)
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(ORDER))
        images = images.subset(order)
        tensors = {"images": images.images, "labels": images.labels}
        torch.save({**tensors, "classes": list(dataset.class_names)}, place / f"{split}.pt")


ADAPTERS: dict[str, Callable[[Dataset, Path], None]] = {"train_test_pt": train_test_pt}


def peer_command(
    peer: dict[str, Any], script: Path, epochs: float, threads: int, seed: int
) -> list[str]:
    """The command that runs a peer's script for `epochs` on the CPU."""
    command = [sys.executable, str(HERE / "cuda_on_cpu.py"), str(script.resolve())]
    command += ["--threads", str(threads), "--seed", str(seed)]
    for old, new in peer["replace"]:
        command += ["--replace", old, new.format(epochs=f"{epochs:g}")]
    return command


def read_output(peer: dict[str, Any], text: str) -> dict[str, Any]:
    """The figures in a peer's output: a curve of epochs, and what stands at the end.

    Raises:
        ValueError: They are not there.
    """
    curve = [
        (float(row["train_seconds"]), float(row["accuracy"]))
        for row in re.finditer(peer["epoch"], text)
    ]
    end = re.search(peer["end"], text)
    if not curve or not end:
        raise ValueError(f"no results in the output of {peer['name']}:\n{text[-2000:]}")
    return {
        "train_seconds": curve[-1][0],
        "accuracy": curve[-1][1],
        "accuracy_six_views": float(end["accuracy_six_views"]),
        "curve": curve,
    }


def run_peer(
    peer: dict[str, Any], command: list[str], folder: Path, epochs: float
) -> dict[str, Any]:
    """Run a peer once in `folder`, where its data lie, and see that it took so many epochs."""
    started = time.perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{peer['name']} failed:\n{done.stderr[-2000:]}")
    seconds = time.perf_counter() - started
    found = read_output(peer, done.stdout)
    if len(found["curve"]) != math.ceil(epochs):
        raise SystemExit(f"{peer['name']} took {len(found['curve'])} epochs, not {epochs:g}")
    return {**found, "process_seconds": seconds}


def check_kept(record: Path, made_of: dict[str, Any]) -> None:
    """See that a peer's run, where it is kept in `record`, is the one that is asked for."""
    if not record.is_file():
        return
    kept = json.loads(record.read_text(encoding="utf-8")).get("made_of", {})
    if differ := [name for name, value in made_of.items() if kept.get(name) != value]:
        raise SystemExit(f"{record} is of another {', '.join(differ)}; give another --out")


def summary(name: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Spread of each figure over the runs of one side."""
    figures = ("accuracy", "accuracy_six_views", "train_seconds", "process_seconds")
    return {
        "name": name,
        **{figure: asdict(spread([run[figure] for run in runs])) for figure in figures},
        "runs": runs,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("peer", type=Path)
    parser.add_argument("--script", type=Path, required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--recipe", nargs="+", default=["fast90"])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--peer-runs", type=int, default=1)
    parser.add_argument("--peer-epochs", type=float, nargs="+", help="default: as published")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("build/peers"))
    arguments = parser.parse_args()
    stems = [Path(recipe).stem for recipe in arguments.recipe]
    if len(set(stems)) < len(stems):
        parser.error(f"runs are kept by the recipe's name, and two have the same: {stems}")
    peer = yaml.safe_load(arguments.peer.read_text(encoding="utf-8"))
    threads = [f"runtime.threads={arguments.threads}"]
    ours = {r: load_config(r, overrides=threads, data=arguments.data) for r in arguments.recipe}
    dataset = load_dataset(next(iter(ours.values())).data)
    assert dataset.test
    splits = Splits(dataset.train, dataset.test, dataset.class_names, "test")
    made_of = {
        "set of images": splits.fingerprint,
        "order of images": ORDER,
        "script": hashlib.sha256(arguments.script.read_bytes()).hexdigest(),
        "way of editing it": [peer["data"], peer["replace"]],
    }
    lengths = [f"{epochs:g}" for epochs in arguments.peer_epochs or [peer["epochs"]]]
    theirs = {f"{peer['name']}, {length} epochs": length for length in lengths}
    runs = dict.fromkeys(ours, arguments.runs) | dict.fromkeys(theirs, arguments.peer_runs)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in runs}

    def record_of(name: str, seed: int) -> Path:
        stem = f"{peer['name']}-{theirs[name]}-{arguments.threads}-{seed}"
        return Path(arguments.out) / f"{stem}.json"

    arguments.out.mkdir(parents=True, exist_ok=True)
    # All before the first run: what is in the way must not come out after hours.
    plan(ours, arguments.runs, arguments.out)
    for name, number in interleaved(runs):
        if name in theirs:
            check_kept(record_of(name, number + 1), made_of)
    for name, number in interleaved(runs):
        print(f"{name}, run {number + 1}", flush=True)
        seed = number + 1
        if name in ours:
            run: BenchRun = bench({name: ours[name]}, 1, arguments.out, seed)[0]
            found[name].append(asdict(run))
            continue
        record, epochs = record_of(name, seed), float(theirs[name])
        if not record.is_file():
            with tempfile.TemporaryDirectory() as place:
                ADAPTERS[peer["data"]](dataset, Path(place))
                command = peer_command(peer, arguments.script, epochs, arguments.threads, seed)
                figures = run_peer(peer, command, Path(place), epochs)
                write_json(record, {**figures, "made_of": made_of})
        found[name].append(json.loads(record.read_text(encoding="utf-8")))
    report = [summary(name, records) for name, records in found.items() if records]
    write_json(arguments.out / f"{'-'.join(stems)}-{peer['name']}-{'_'.join(lengths)}.json", report)
    for row in report:
        print(
            f"{row['name']}: {row['accuracy']['mean']:.2%} single view, "
            f"{row['accuracy_six_views']['mean']:.2%} six views, "
            f"{row['train_seconds']['mean']:.1f} s of training, n = {row['accuracy']['n']}"
        )


if __name__ == "__main__":
    main()
