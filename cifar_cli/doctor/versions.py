"""Whether the packages that are installed are the ones that are needed, and can be loaded."""

from __future__ import annotations

import importlib
import importlib.metadata
import platform
import re

from cifar_cli.errors import ConfigError, is_out_of_memory

IMPORT_NAMES = {"pyyaml": "yaml", "pillow": "PIL"}


def check_versions() -> str:
    """What is installed, with its versions.

    Raises:
        ConfigError: Something is missing, too old, or cannot be loaded.
    """
    problems = []
    for requirement in _requirements("cifar-resnet"):
        problems += _unmet(requirement)
    for requirement in _requirements("torchvision"):
        if requirement.startswith("torch"):
            problems += [f"torchvision needs {requirement}: {p}" for p in _unmet(requirement)]
    if problems:
        raise ConfigError("; ".join(problems) + ".")
    import torch
    import torchvision

    # An operation of torchvision's own library, which loads for the torch that it was built for.
    torchvision.ops.nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.ones(1), 0.5)
    names = ("torch", "torchvision", "albumentations", "torch-lr-finder", "torchinfo")
    found = [f"{name} {importlib.metadata.version(name)}" for name in names]
    return ", ".join([f"Python {platform.python_version()}", *found])


def _requirements(package: str) -> list[str]:
    """What an installed package needs, without extras."""
    try:
        needed = importlib.metadata.requires(package) or []
    except importlib.metadata.PackageNotFoundError:
        return []
    return [text for text in needed if "extra ==" not in text]


def _unmet(requirement: str) -> list[str]:
    """What is wrong with a requirement such as `torch>=2.10`; only >= and == are looked at."""
    name = re.split(r"[^\w.-]", requirement)[0]
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return [f"{name} is not installed"]
    for relation, wanted in re.findall(r"(>=|==)\s*([\d.]+)", requirement):
        least, here = _numbers(wanted), _numbers(version)
        if (here < least) if relation == ">=" else (here[: len(least)] != least):
            return [f"{name} {version} is installed, {relation} {wanted} is needed"]
    try:
        importlib.import_module(IMPORT_NAMES.get(name, name.replace("-", "_")))
    except Exception as error:  # a broken package raises anything
        if is_out_of_memory(error):
            raise
        return [f"{name} {version} cannot be imported ({type(error).__name__}: {error})"]
    return []


def _numbers(version: str) -> tuple[int, ...]:
    leading = re.match(r"[\d.]*", version)
    assert leading is not None
    return tuple(int(part) for part in leading[0].split(".") if part)
