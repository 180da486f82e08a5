"""Size of a report, and seconds that it takes beyond the forward pass.

python benchmarks/report.py [--run RUN] [--images 10000] [--n 60]

The network of a run classifies its training images, which are repeated until there are enough.
Seconds of imports are counted, so that each run of this script is a cold one.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import torch

from cifar_cli.analysis.evaluate import evaluate, summarise_predictions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", help="default: the newest")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--n", type=int, default=60)
    arguments = parser.parse_args()
    found = evaluate(arguments.run, split="train").predictions
    rows = torch.arange(arguments.images) % len(found.images)
    images = found.images.subset(rows)
    images = replace(images, indices=torch.arange(arguments.images))
    started = time.perf_counter()
    logits = found.trained.logits(images.images)
    forward = time.perf_counter()
    files = tuple(found.files[row] for row in rows.tolist()) if found.files else ()
    evaluation = summarise_predictions(replace(found, images=images, logits=logits, files=files))
    from cifar_cli.analysis.report import make_report
    from cifar_cli.output.report.page import report_page

    report = make_report(evaluation, split="train", n=arguments.n)
    figures = time.perf_counter()
    size = len(report_page(report).encode())
    drawn = time.perf_counter()
    print(
        f"{arguments.images:,} images, {torch.get_num_threads()} threads: forward pass "
        f"{forward - started:.1f} s; beyond it {drawn - forward:.1f} s (figures "
        f"{figures - forward:.1f} s, page {drawn - figures:.1f} s). "
        f"{len(report.mistakes):,} mistakes and {len(report.suspects):,} suspects shown: "
        f"{size:,} bytes."
    )


if __name__ == "__main__":
    main()
