"""Help is instant: nothing heavy is imported for it."""

from __future__ import annotations

import subprocess
import sys

import pytest

COMMANDS = (
    "",
    "summary",
    "preview-augs",
    "find-lr",
    "train",
    "evaluate",
    "misclassified",
    "predict",
    "export",
    "report",
    "serve",
    "plot",
    "compare",
    "bench",
    "doctor",
    "recipes",
    "recipes list",
    "runs",
    "runs list",
)
HEAVY = ("torch", "numpy", "matplotlib", "albumentations", "torchvision", "PIL", "cv2", "pydantic")
PROBE = """
import sys
from cifar_cli.cli.app import run
code = run(sys.argv[1:])
print("HEAVY:", *[m for m in {heavy!r} if m in sys.modules])
sys.exit(code)
"""


def probe(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", PROBE.format(heavy=HEAVY), *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_help_imports_nothing_heavy(command: str) -> None:
    found = probe(*command.split(), "--help")
    assert found.returncode == 0, found.stderr
    assert "Usage:" in found.stdout
    assert found.stdout.splitlines()[-1] == "HEAVY:"
    assert found.stderr == ""


def test_the_version_imports_nothing_heavy() -> None:
    found = probe("--version")
    assert found.stdout.startswith("cifar-resnet 0.1.0")
    assert found.stdout.splitlines()[-1] == "HEAVY:"


def test_the_probe_sees_what_is_heavy() -> None:
    assert "torch" in probe("summary", "--set", "model.width=1").stdout.splitlines()[-1]


def test_importing_the_package_is_instant_and_names_its_public_parts() -> None:
    program = (
        "import sys, cifar_cli; assert 'torch' not in sys.modules; "
        "print(cifar_cli.load_config('demo').data.source, 'torch' in sys.modules)"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert found.stdout.split() == ["shapes", "False"]
