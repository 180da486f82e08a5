"""Which kernels a network runs once it is placed, and what `status` says of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest import need_compiled_code, on_cpu, tiny_config
from torch.nn import functional as F

from cifar_cli import kernels
from cifar_cli.config import load_config
from cifar_cli.kernels import library
from cifar_cli.kernels.compiled import CompiledWinograd
from cifar_cli.kernels.modules import Conv2d
from cifar_cli.models import build_model
from cifar_cli.training.environment import describe_environment

CPU = torch.device("cpu")


def images(count: int) -> torch.Tensor:
    return torch.randn(count, 3, 32, 32).to(memory_format=torch.channels_last)


@pytest.mark.parametrize("recipe", ["baseline", "fast90"])
def test_a_step_of_training_has_the_same_gradients(recipe: str) -> None:
    gradients = {}
    x = images(6)
    narrow = ["model.width=32", "model.dropout=0", "model.residual_dropout=0"]
    own = narrow if recipe == "baseline" else []
    for winograd in (True, False):
        config = load_config(recipe, overrides=[*own, f"runtime.winograd={winograd}"], env={})
        torch.manual_seed(2)
        model = build_model(config.model, 10, 32, lambda: x)
        model = on_cpu(config).place(model).train()
        loss = F.cross_entropy(model(x), torch.arange(6))
        with torch.profiler.profile() as profiled:
            loss.backward()
        assert ("_ConvolutionBackward" in {row.key for row in profiled.key_averages()}) == winograd
        gradients[winograd] = [p.grad for p in model.parameters() if p.grad is not None]
    for ours, direct in zip(gradients[True], gradients[False], strict=True):
        # Of two nearly equal pixels, rounding may make the other one the maximum.
        assert (ours - direct).norm() / direct.norm() < 0.03


@pytest.mark.parametrize("wanted", [True, False])
@pytest.mark.parametrize("there", [True, False])
def test_layers_use_compiled_code_if_it_is_wanted_and_there(
    wanted: bool, there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "load", lambda folder: there)
    config = tiny_config(runtime__native=wanted)
    model = on_cpu(config).place(build_model(config.model, 10, 32))
    assert {m.compiled for m in model.modules() if isinstance(m, Conv2d)} == {wanted and there}
    assert describe_environment(on_cpu(config), model)["compiled_code"] == (wanted and there)


def test_no_code_is_compiled_if_no_layer_could_use_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "load", pytest.fail)
    for setting in ({"runtime__precision": "bf16"}, {"runtime__channels_last": False}):
        config = tiny_config(**setting)
        on_cpu(config).place(build_model(config.model, 10, 32))


def test_status_says_why_there_is_no_compiled_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "_loaded", None)
    monkeypatch.setattr(library, "_problem", None)
    assert kernels.status() == (False, "nobody has asked for it")
    monkeypatch.setattr(library, "_problem", "there is no C compiler")
    assert kernels.status() == (False, "there is no C compiler")
    monkeypatch.setattr(library, "_loaded", object())
    assert kernels.status() == (True, None)


def test_a_placed_network_runs_compiled_code(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    need_compiled_code(tmp_path_factory)
    config = tiny_config(model__name="speed_resnet", model__widths=[32, 64, 64])
    model = on_cpu(config).place(build_model(config.model, 10, 32))
    called: list[str] = []
    for name in ("forward", "backward"):
        original = getattr(CompiledWinograd, name)

        def note(self: Any, *rest: Any, name: str = name, original: Any = original) -> None:
            called.append(name)
            original(self, *rest)

        monkeypatch.setattr(CompiledWinograd, name, note)
    model(images(2)).sum().backward()
    assert called == ["forward"] * 6 + ["backward"] * 6
