"""The training loop, against a plain loop that does each step the obvious way."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
import torch._dynamo
from conftest import on_cpu, random_images, tiny_config
from torch import Tensor, nn

from cifar_cli.config import Config
from cifar_cli.data.loader import Normalise, TrainLoader
from cifar_cli.data.types import ImageSet
from cifar_cli.errors import DivergedError
from cifar_cli.models import build_model
from cifar_cli.models.custom_resnet import CustomResnet
from cifar_cli.rundir import EpochRecord, StepRecord
from cifar_cli.training import loop as loop_module
from cifar_cli.training.evaluation import predict_logits, score
from cifar_cli.training.loop import train_epochs
from cifar_cli.training.optim import build_optimizer
from cifar_cli.training.runtime import EVAL_BATCH, Runtime
from cifar_cli.training.state import TrainState
from cifar_cli.training.step import Step

CPU = torch.device("cpu")


def fresh(config: Config) -> TrainState:
    torch.manual_seed(config.seed)
    model = build_model(config.model, 10, 32)
    return TrainState(model, build_optimizer(model, config.optim, 0.01))


def epochs_of(
    state: TrainState, loader: TrainLoader, val: ImageSet, config: Config, **options: Any
) -> Iterator[tuple[EpochRecord, list[StepRecord]] | None]:
    return train_epochs(state, loader, val, config, on_cpu(config), **options)


def run(
    config: Config, train: ImageSet, val: ImageSet
) -> tuple[TrainState, list[EpochRecord], list[StepRecord]]:
    state = fresh(config)
    epochs = epochs_of(state, TrainLoader(train, config, CPU), val, config)
    results = [ended for ended in epochs if ended]
    return state, [r for r, _ in results], [s for _, steps in results for s in steps]


def test_it_computes_what_a_plain_loop_computes() -> None:
    config = tiny_config(model__dropout=0.1, runtime__channels_last=False)
    train, val = random_images(70), random_images(20, seed=1)
    state, records, steps = run(config, train, val)

    torch.manual_seed(config.seed)
    model = build_model(config.model, 10, 32)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=1e-4)
    loader = TrainLoader(train, config, CPU)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=0.01,
        total_steps=6,
        pct_start=5 / 24,
        anneal_strategy="linear",
        div_factor=10,
        final_div_factor=100,
    )
    for record in records:
        total, right = 0.0, 0
        for images, labels in loader.epoch(record.epoch):
            optimizer.zero_grad()
            logits = model(images)
            loss = nn.functional.cross_entropy(logits, labels)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(labels)
            right += int((logits.argmax(1) == labels).sum())
            lr = optimizer.param_groups[0]["lr"]
            if record.epoch < 2 or len(labels) == 32:
                schedule.step()
        assert record.train_loss == pytest.approx(total / 70, rel=1e-4)
        assert record.train_accuracy == pytest.approx(right / 70, abs=1.5 / 70)
        assert record.lr == pytest.approx(lr)
    for ours, theirs in zip(state.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-3, rtol=1e-2)
    assert [s.step for s in steps] == list(range(6))


def test_validation_figures_are_means_per_image_over_the_plain_images() -> None:
    config = tiny_config(train__epochs=1)
    val = random_images(20, seed=1)
    state, (record,), _ = run(config, random_images(40), val)
    state.model.eval()
    with torch.no_grad():
        images = TrainLoader(val, config, CPU).normalise(val.images)
        logits = state.model(images)
        loss = nn.functional.cross_entropy(logits, val.labels).item()
    assert record.val_loss == pytest.approx(loss, rel=1e-5)
    assert record.val_accuracy == (logits.argmax(1) == val.labels).double().mean().item()


def test_two_runs_are_bit_equal_and_another_seed_differs() -> None:
    train, val = random_images(70), random_images(20, seed=1)
    one, first, _ = run(tiny_config(), train, val)
    two, second, _ = run(tiny_config(), train, val)
    other, _, _ = run(tiny_config(seed=2), train, val)
    assert [(r.train_loss, r.val_loss) for r in first] == [
        (r.train_loss, r.val_loss) for r in second
    ]
    for a, b in zip(one.model.parameters(), two.model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(next(one.model.parameters()), next(other.model.parameters()))


def test_it_learns() -> None:
    config = tiny_config(train__epochs=12, augment__crop_p=0, augment__cutout_p=0, model__width=8)
    noise = random_images(64, classes=4)
    _, records, _ = run(config, noise, noise)
    assert records[-1].train_loss < 0.5 * records[0].train_loss


def test_it_stops_after_the_step_at_hand_and_goes_on_from_there() -> None:
    config = tiny_config()
    train, val = random_images(70), random_images(20, seed=1)
    whole, records, _ = run(config, train, val)
    state, seen = fresh(config), []
    loader = TrainLoader(train, config, CPU)
    stops = iter([False, True])
    epochs = epochs_of(
        state,
        loader,
        val,
        config,
        pause=lambda: next(stops),
        on_step=lambda epoch, step: seen.append((epoch, step)),
    )
    assert next(epochs) is None
    assert seen == [(1, 1), (1, 2)]
    assert (state.epoch, state.step) == (1, 2)
    rest = [ended[0] for ended in epochs_of(state, loader, val, config) if ended]
    assert [(r.train_loss, r.val_accuracy) for r in rest] == [
        (r.train_loss, r.val_accuracy) for r in records
    ]
    for a, b in zip(whole.model.parameters(), state.model.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.fault(72)
def test_a_stop_while_an_epoch_is_validated_does_not_wait_for_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = tiny_config()
    train, val = random_images(70), random_images(20, seed=1)
    monkeypatch.setitem(EVAL_BATCH, "cpu", 8)
    whole, records, _ = run(config, train, val)
    state, loader, seen = fresh(config), TrainLoader(train, config, CPU), []

    def is_stopping() -> bool:
        seen.append((state.epoch, state.step))
        return len(seen) == 2

    loader.heed(is_stopping)
    assert list(epochs_of(state, loader, val, config)) == [None]
    assert seen == [(1, 3), (1, 3)], "asked after the first and the second of three batches"
    assert state.history == []
    loader.heed(lambda: False)
    rest = [ended[0] for ended in epochs_of(state, loader, val, config) if ended]
    assert [(r.train_loss, r.val_accuracy) for r in rest] == [
        (r.train_loss, r.val_accuracy) for r in records
    ]
    for a, b in zip(whole.model.parameters(), state.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_loss_that_is_no_number_ends_training_with_its_place() -> None:
    config = tiny_config(optim__max_lr=100, schedule__div_factor=1)
    state = fresh(config)
    with torch.no_grad():
        next(state.model.parameters()).fill_(math.nan)
    loader = TrainLoader(random_images(70), config, CPU)
    with pytest.raises(DivergedError, match="nan in epoch 1, step 1, at LR 100"):
        list(epochs_of(state, loader, random_images(10), config))


def test_losses_that_are_looked_at_late_end_training_before_anything_is_saved(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = tiny_config()
    loader, val = TrainLoader(random_images(70), config, CPU), random_images(10)
    with monkeypatch.context() as patch:  # on a GPU it does not raise
        patch.setattr(Step, "backward", lambda step, loss: loss.detach() * math.nan)
        epochs = epochs_of(fresh(config), loader, val, config, pause=lambda: True)
        with pytest.raises(DivergedError, match="a gradient became nan in epoch 1, step 1, at LR"):
            next(epochs)
        state = fresh(config)
        with pytest.raises(DivergedError, match="a gradient became nan in epoch 1, step 1, at LR"):
            next(epochs_of(state, loader, val, config))
        assert state.history == []
    nothing = torch.full((10, 10), math.nan)
    monkeypatch.setattr(loop_module, "predict_logits", lambda *_, **__: nothing)
    state = fresh(config)
    with pytest.raises(DivergedError, match="The validation loss became nan in epoch 1, step 3"):
        list(epochs_of(state, loader, val, config))
    assert state.history == []


def test_steps_have_the_resolution_and_the_smoothing_that_are_set() -> None:
    config = tiny_config(
        model__name="speed_resnet", model__widths=[8, 8, 8], train__label_smoothing=0.2,
        train__resolutions=[[0.3, 20], [0.6, 24]],
    )  # fmt: skip
    state = fresh(config)
    first = copy.deepcopy(state.model).train()
    sides: list[int] = []

    def note(model: nn.Module, arguments: tuple[Tensor]) -> None:
        if model.training:
            sides.append(arguments[0].shape[-1])

    state.model.register_forward_pre_hook(note)
    loader = TrainLoader(random_images(70), config, CPU)
    ended = [found for found in epochs_of(state, loader, random_images(10), config) if found]
    assert sides == [20, 20, 24, 24, 32, 32]
    images, labels = next(iter(loader.epoch(1)))
    small = nn.functional.interpolate(images, size=(20, 20), mode="bilinear", align_corners=False)
    loss = nn.functional.cross_entropy(first(small), labels, label_smoothing=0.2)
    assert ended[0][1][0].train_loss == pytest.approx(loss.item(), rel=1e-5)


def test_bf16_is_for_the_passes_and_not_for_the_weights() -> None:
    config = tiny_config(train__epochs=1, runtime__precision="bf16")
    state = fresh(config)
    seen = set()
    assert isinstance(state.model, CustomResnet)
    state.model.classifier.register_forward_hook(
        lambda layer, _, out: seen.add((layer.training, out.dtype))
    )
    loader = TrainLoader(random_images(40), config, CPU)
    list(epochs_of(state, loader, random_images(10), config))
    assert seen == {(True, torch.bfloat16), (False, torch.bfloat16)}
    assert {p.dtype for p in state.model.parameters()} == {torch.float32}


def test_a_compiled_network_takes_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def compiled(model: nn.Module) -> Callable[[Tensor], Tensor]:
        def forward(images: Tensor) -> Tensor:
            sizes.append(len(images))
            logits: Tensor = model(images)
            return logits

        return forward

    monkeypatch.setattr(torch, "compile", compiled)
    config = tiny_config(train__epochs=1, runtime__compile=True)
    run(config, random_images(70), random_images(20))
    assert sizes == [32, 32, 6]


@pytest.mark.parametrize("model", ["custom_resnet", "speed_resnet"])
def test_what_torch_compiles_learns_as_the_plain_network_does(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Traced whole and derived, at several sizes; torch's generator of code is left out."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    network: dict[str, Any] = {"model__name": model, "model__widths": [8, 8, 8]}
    if model == "custom_resnet":
        network = {"model__dropout": 0.0, "model__residual_dropout": 0.0}
    settings = {**network, "train__resolutions": [[0.3, 16], [0.6, 24]]}

    def losses(**changes: bool) -> list[float]:
        config = tiny_config(**settings, **changes, runtime__native=False)
        state = fresh(config)
        on_cpu(config).place(state.model)
        loader = TrainLoader(random_images(70), config, CPU)
        ended = epochs_of(state, loader, random_images(10), config)
        return [step.train_loss for found in ended if found for step in found[1]]

    assert losses(runtime__compile=True) == pytest.approx(losses(), rel=1e-3)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 2
    assert not torch._dynamo.utils.counters["graph_break"]


@pytest.mark.fault(28)
def test_an_infinite_gradient_ends_training_before_it_reaches_the_weights() -> None:
    config = tiny_config()
    state = fresh(config)
    parameter = next(state.model.parameters())
    backward_passes = []

    def spoil(gradient: Tensor) -> Tensor:
        backward_passes.append(1)
        return gradient * math.inf if len(backward_passes) == 3 else gradient

    parameter.register_hook(spoil)
    loader = TrainLoader(random_images(100), config, CPU)
    with pytest.raises(DivergedError, match=r"A gradient became (inf|nan) in epoch 1, step 3, at"):
        list(epochs_of(state, loader, random_images(10), config))
    assert all(p.isfinite().all() for p in state.model.parameters())


def test_prediction_keeps_the_mode_and_does_not_depend_on_the_batch_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = tiny_config()
    model = build_model(config.model, 10, 32).train()
    normalise = Normalise(config.data.mean, config.data.std)
    images, runtime = random_images(23).images, on_cpu(config)
    whole = predict_logits(model, images, normalise, runtime)
    monkeypatch.setitem(EVAL_BATCH, "cpu", 5)
    parts = predict_logits(model, images, normalise, runtime)
    assert model.training
    torch.testing.assert_close(whole, parts)


def test_larger_images_are_looked_at_in_smaller_batches() -> None:
    settings = tiny_config().runtime
    cpu, cuda = (Runtime(torch.device(name), settings) for name in ("cpu", "cuda"))
    assert [cpu.eval_batch(side) for side in (16, 32, 64, 512)] == [500, 500, 125, 1]
    for side in (32, 120, 512):  # baseline's prep layer with its border
        assert cuda.eval_batch(side) * 64 * (side + 2) ** 2 < 2**31


def test_scores_by_hand() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    scores = score(logits, torch.tensor([0, 0, 1]))
    expected = [math.log(1 + math.exp(-2)), math.log(1 + math.exp(1)), math.log(2)]
    assert scores.loss == pytest.approx(sum(expected) / 3)
    assert scores.accuracy == pytest.approx(1 / 3)
