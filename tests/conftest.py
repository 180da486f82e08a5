"""Fixtures that all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Timing depends on the machine that runs the tests; what is tested here does not.
settings.register_profile("plain", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("plain")


@pytest.fixture(autouse=True)
def isolated(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test gets its own cache folder and none of the caller's settings."""
    for variable in [name for name in os.environ if name.startswith("CIFAR_RESNET_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("CIFAR_RESNET_HOME", str(tmp_path_factory.mktemp("home")))


@pytest.fixture
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder as the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
