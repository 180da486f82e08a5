"""The same engine from Python: train on the built-in shapes, evaluate, and use the network.

python examples/python_api.py [RUN_DIR]
"""

from __future__ import annotations

import sys

from PIL import Image

from cifar_cli import evaluate, load_config, load_model, train


def main(run_dir: str) -> None:
    config = load_config(
        "demo",
        settings={"train.epochs": 2, "model.width": 8, "data.limit_train": 1000},
    )
    result = train(config, run_dir)
    for record in result.history:
        print(f"epoch {record.epoch}: validation accuracy {record.val_accuracy:.1%}")

    report = evaluate(result.run_dir)
    low, high = report.interval
    print(f"{report.correct} of {report.num_images} right, 95% interval {low:.1%} to {high:.1%}")
    worst = min(report.per_class, key=lambda one: one.accuracy or 0.0)
    print(f"hardest class: {worst.name}")

    model = load_model(result.run_dir)
    print(model)
    grey = Image.new("RGB", (64, 48), "grey")  # or a path, an array, a tensor, or a list of them
    found = model.predict(grey)
    print(f"a grey image is taken for: {found.class_name} ({found.probability:.1%})")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "runs/python-api")
