"""Winograd's way through a convolution against the direct one."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import torch
from conftest import need_compiled_code
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from cifar_cli.config import load_config
from cifar_cli.models import (
    build_model,
    compiled_winograd,
    convolution,
    custom_resnet,
    tiles,
    winograd,
)
from cifar_cli.models.convolution import Conv2d, convolve, start_of_block
from cifar_cli.models.tiles import transforms
from cifar_cli.models.toom_cook import SIDES
from cifar_cli.training.runtime import place_model

LAST = torch.channels_last


@pytest.fixture(scope="module", params=[False, True], ids=["torch", "compiled"])
def compiled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> bool:
    """Whether by compiled code, which is then there to be used."""
    if request.param:
        need_compiled_code(tmp_path_factory)
    return bool(request.param)


def direct(x: Tensor, weight: Tensor, padding_mode: str) -> Tensor:
    """The slow and obvious way, in double precision."""
    mode = "reflect" if padding_mode == "reflect" else "constant"
    return F.conv2d(F.pad(x.double(), (1, 1, 1, 1), mode=mode), weight.double())


def error(found: Tensor, expected: Tensor) -> float:
    return ((found.double() - expected).norm() / expected.norm()).item()


@settings(max_examples=60)
@given(
    side=st.sampled_from(SIDES),
    padding_mode=st.sampled_from(["zeros", "reflect"]),
    batch=st.integers(1, 90),
    size=st.tuples(st.integers(2, 14), st.integers(2, 14)),
    channels=st.tuples(st.integers(1, 40), st.integers(1, 70)),
    seed=st.integers(0, 9),
)
def test_output_and_gradients_are_those_of_the_direct_way(
    side: int,
    padding_mode: str,
    batch: int,
    size: tuple[int, int],
    channels: tuple[int, int],
    seed: int,
    compiled: bool,
) -> None:
    torch.manual_seed(seed)
    x = torch.randn(batch, channels[0], *size).to(memory_format=LAST).requires_grad_()
    weight = torch.randn(channels[1], channels[0], 3, 3, requires_grad=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled_winograd, "SUMS", 32)  # so that there are several parts of outputs
        out = convolve(x, weight, side, padding_mode, compiled=compiled)
        assert out.is_contiguous(memory_format=LAST)
        gradient = torch.randn_like(out)
        found = torch.autograd.grad(out, [x, weight], gradient)
    reference = direct(x, weight, padding_mode)
    expected = torch.autograd.grad(reference, [x, weight], gradient.double())
    assert error(out, reference) < 2e-5
    assert error(found[0], expected[0].double()) < 2e-5
    assert error(found[1], expected[1].double()) < 5e-5


@settings(max_examples=60)
@given(
    side=st.sampled_from([None, *SIDES]),
    reflect=st.booleans(),
    batch=st.integers(1, 40),
    size=st.tuples(st.integers(2, 14), st.integers(2, 14)),
    outputs=st.integers(1, 40),
    seed=st.integers(0, 9),
)
def test_pooled_at_once_is_pooled_after(
    side: int | None,
    reflect: bool,
    batch: int,
    size: tuple[int, int],
    outputs: int,
    seed: int,
    compiled: bool,
) -> None:
    """Piece by piece, with several pieces and several parts of the outputs: both are made small."""
    torch.manual_seed(seed)
    mode = "reflect" if reflect and side else "zeros"
    if compiled and side:
        side += side % 2
    x = torch.randn(batch, 3, *size).to(memory_format=LAST).requires_grad_()
    weight = torch.randn(outputs, 3, 3, 3, requires_grad=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convolution, "PIECE", 700)
        patch.setattr(tiles, "TILES", 30)
        patch.setattr(compiled_winograd, "TILES", 3)
        patch.setattr(compiled_winograd, "SUMS", 32)
        # By the same way, as of two nearly equal pixels rounding decides which one is pooled.
        if side:
            pixels = convolve(x, weight, side, mode, compiled=compiled)
        else:
            pieces = x.split(max(1, convolution.PIECE // (size[0] * size[1] * outputs)))
            pixels = torch.cat([F.conv2d(piece, weight, padding=1) for piece in pieces])
        apart = F.max_pool2d(pixels, 2)
        out = convolve(x, weight, side, mode, pool=True, compiled=compiled)
        assert out.is_contiguous(memory_format=LAST)
        gradient = torch.randn_like(out)
        found = torch.autograd.grad(out, [x, weight], gradient)
    expected = torch.autograd.grad(apart, [x, weight], gradient)
    torch.testing.assert_close(out, apart, rtol=1e-4, atol=1e-4)
    assert error(found[0], expected[0]) < 1e-4
    assert error(found[1], expected[1]) < 1e-4


@settings(max_examples=60)
@given(
    side=st.sampled_from(SIDES),
    pool=st.booleans(),
    reflect=st.booleans(),
    batch=st.integers(1, 20),
    size=st.tuples(st.integers(2, 15), st.integers(2, 15)),
    channels=st.tuples(st.integers(1, 70), st.integers(1, 300)),
)
def test_compiled_code_keeps_to_its_memory(
    side: int,
    pool: bool,
    reflect: bool,
    batch: int,
    size: tuple[int, int],
    channels: tuple[int, int],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """It writes nothing beside its scratch memory; what it did not write there changes nothing."""
    need_compiled_code(tmp_path_factory)
    side += side % 2 if pool else 0
    beside, given_out = 1000, []

    def scratch(shape: tuple[int]) -> list[Tensor]:
        memory = torch.full((shape[0] + 2 * beside,), 12345.0)
        given_out.append(memory)
        return [memory[beside:-beside].fill_(torch.nan)]

    x = torch.randn(batch, channels[0], *size).to(memory_format=LAST).requires_grad_()
    weight = torch.randn(channels[1], channels[0], 3, 3, requires_grad=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled_winograd, "scratch", scratch)
        mode = "reflect" if reflect else "zeros"
        out = convolve(x, weight, side, mode, pool=pool, compiled=True)
        gradients = torch.autograd.grad(out, [x, weight], torch.ones_like(out))
    assert all(tensor.isfinite().all() for tensor in (out, *gradients))
    assert len(given_out) == 2
    for memory in given_out:
        assert (memory[:beside] == 12345).all()
        assert (memory[-beside:] == 12345).all()


@pytest.mark.parametrize("settings_of_layer", [(True, 64), (True, 8), (False, 64)], ids=str)
def test_a_block_starts_with_convolution_and_pooling(settings_of_layer: tuple[bool, int]) -> None:
    """In one where that is quicker (by Winograd's way or the direct one), in turn elsewhere."""
    winograd_on, width = settings_of_layer
    layer, pooling, last = Conv2d(8, width, 3, padding=1, bias=False), nn.MaxPool2d(2), nn.ReLU()
    x = torch.randn(4, 8, 9, 9).to(memory_format=LAST)
    layer.winograd = winograd_on
    out, left = start_of_block([layer, pooling, last], x)
    assert left == ([last] if winograd_on else [pooling, last])
    expected = F.conv2d(x, layer.weight, padding=1)
    expected = pooling(expected) if winograd_on else expected
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)
    assert start_of_block([layer, last], x)[1] == [last]


@pytest.mark.parametrize(
    "x",
    [
        torch.ones(2, 8, 4, 4),
        torch.ones(2, 8, 4, 4).double().to(memory_format=LAST),
        torch.ones(0, 8, 4, 4).to(memory_format=LAST),
        torch.ones(2, 8, 1, 4).to(memory_format=LAST),
    ],
    ids=["another layout", "another precision", "no images", "too flat"],
)
def test_compiled_code_is_not_given_what_it_would_misread(x: Tensor) -> None:
    with pytest.raises(ValueError, match="channels last"):
        convolve(x, torch.ones(8, 8, 3, 3, dtype=x.dtype), 4, compiled=True)


def test_tiles_of_two_are_exact_on_small_whole_numbers(compiled: bool) -> None:
    x = torch.randint(-8, 9, (3, 4, 6, 6)).float().to(memory_format=LAST)
    weight = torch.randint(-8, 9, (5, 4, 3, 3)).float()
    assert torch.equal(convolve(x, weight, 2, compiled=compiled), F.conv2d(x, weight, padding=1))


def test_the_transforms_of_tiles_of_two_are_the_published_ones() -> None:
    """Lavin and Gray, equation 7, in the order 0, 1, -1, infinity; signs may differ in pairs."""
    image = torch.tensor([[1.0, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, -1, 0, 1]])
    kernel = torch.tensor([[1.0, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
    output = torch.tensor([[1.0, 1, 1, 0], [0, 1, -1, 1]])
    found = transforms(2)
    assert torch.equal(found.image, torch.kron(image, image))
    assert torch.equal(found.kernel, torch.kron(kernel, kernel))
    assert torch.equal(found.output, torch.kron(output, output))


@pytest.mark.parametrize(
    ("height", "width", "inputs", "outputs", "side"),
    [
        (32, 32, 64, 128, 4),
        (4, 4, 512, 512, 4),
        (3, 3, 192, 192, 3),
        (5, 5, 192, 192, 5),
        (6, 6, 192, 192, 6),
        (32, 32, 3, 64, None),  # too few channels to pay for the transforms
        (32, 32, 8, 8, None),
        (1, 4, 512, 512, None),
    ],
)
def test_tiles_fit_the_image_where_they_pay(
    height: int, width: int, inputs: int, outputs: int, side: int | None
) -> None:
    assert winograd.best_side(height, width, inputs, outputs) == side


@pytest.mark.parametrize(
    ("side", "inputs", "outputs", "pool", "expected"),
    [
        (27, 24, 64, True, 4),
        (13, 64, 64, False, 5),
        (11, 64, 128, True, 6),
        (3, 256, 256, False, 3),
        (32, 3, 64, False, None),  # three channels fill no vector
        (16, 8, 8, False, None),  # eight no panel
    ],
)
def test_compiled_tiles_are_those_that_were_quickest(
    side: int, inputs: int, outputs: int, pool: bool, expected: int | None
) -> None:
    found = winograd.best_side(side, side, inputs, outputs, compiled=True, pool=pool)
    assert found == expected


@given(
    st.integers(1, 40), st.integers(1, 40), st.integers(1, 300), st.integers(1, 300), st.booleans()
)
def test_compiled_tiles_are_pooled_whole(
    height: int, width: int, inputs: int, outputs: int, pool: bool
) -> None:
    side = winograd.best_side(height, width, inputs, outputs, compiled=True, pool=pool)
    assert side is None or side in SIDES
    assert not (pool and side and side % 2)


def goes_winograds_way(layer: Conv2d, x: Tensor) -> bool:
    return "_Convolution" in str(layer(x).grad_fn)


def test_the_layer_goes_winograds_way_only_where_told_to() -> None:
    layer = Conv2d(64, 64, 3, padding=1, bias=False)
    x = torch.randn(2, 64, 8, 8).to(memory_format=LAST)
    assert not goes_winograds_way(layer, x)
    expected = layer(x)
    layer.winograd = True
    assert goes_winograds_way(layer, x)
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "changed",
    [
        {"stride": 2},
        {"dilation": 2},
        {"groups": 2},
        {"bias": True},
        {"kernel_size": 1},
        {"padding": 0},
        {"padding_mode": "circular"},
    ],
    ids=str,
)
def test_other_convolutions_go_the_direct_way(changed: dict[str, int | str]) -> None:
    arguments = {"kernel_size": 3, "padding": 1, "bias": False, **changed}
    layer = Conv2d(64, 64, **arguments)  # type: ignore[arg-type]
    layer.winograd = True
    assert not goes_winograds_way(layer, torch.randn(2, 64, 8, 8).to(memory_format=LAST))


@pytest.mark.parametrize(
    "prepare",
    [lambda x: x.contiguous(), lambda x: x.double()],
    ids=["another layout", "another precision"],
)
def test_other_tensors_go_the_direct_way(prepare: Callable[[Tensor], Tensor]) -> None:
    x = prepare(torch.randn(2, 64, 8, 8).to(memory_format=LAST))
    layer = Conv2d(64, 64, 3, padding=1, bias=False).to(x.dtype)
    layer.winograd = True
    assert not goes_winograds_way(layer, x)


def test_autocast_goes_the_direct_way() -> None:
    layer = Conv2d(64, 64, 3, padding=1, bias=False)
    layer.winograd = True
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(torch.randn(2, 64, 8, 8).to(memory_format=LAST)).dtype == torch.bfloat16


def test_memory_kept_from_inference_serves_training(compiled: bool) -> None:
    """Tensors made in inference mode must not be written to outside of it."""
    layer = Conv2d(64, 64, 3, padding=1, bias=False)
    layer.winograd, layer.compiled = True, compiled
    x = torch.randn(2, 64, 8, 8).to(memory_format=LAST)
    transforms.cache_clear()
    tiles._kept.__dict__.clear()
    with torch.inference_mode():
        expected = layer(x).clone()
    out = layer(x)
    out.sum().backward()
    assert torch.equal(out, expected)
    assert layer.weight.grad is not None


def test_threads_do_not_disturb_each_other(compiled: bool) -> None:
    torch.manual_seed(1)
    inputs = [torch.randn(64, 16, 8, 8).to(memory_format=LAST) for _ in range(3)]
    weight = torch.randn(16, 16, 3, 3)
    expected = [convolve(x, weight, 4, compiled=compiled) for x in inputs]
    equal: list[bool] = []

    def repeat(n: int) -> None:
        for _ in range(20):
            found = convolve(inputs[n], weight, 4, compiled=compiled)
            equal.append(torch.equal(found, expected[n]))

    threads = [threading.Thread(target=repeat, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert equal == [True] * 60


@pytest.mark.parametrize("pool", [False, True])
def test_gradients_may_lie_in_memory_as_they_like(compiled: bool, pool: bool) -> None:
    torch.manual_seed(1)
    x = torch.randn(5, 11, 7, 6).to(memory_format=LAST).requires_grad_()
    weight = torch.randn(9, 11, 3, 3, requires_grad=True)
    out = convolve(x, weight, 4, pool=pool, compiled=compiled)
    plain = torch.randn_like(out)
    for gradient in (plain.contiguous(), torch.ones(1, 1, 1, 1).expand_as(out)):
        dense = gradient.clone(memory_format=LAST)
        found = torch.autograd.grad(out, [x, weight], gradient, retain_graph=True)
        expected = torch.autograd.grad(out, [x, weight], dense, retain_graph=True)
        assert all(map(torch.equal, found, expected))


def test_what_is_no_number_is_pooled_as_such(compiled: bool) -> None:
    x = torch.randn(1, 4, 8, 8).to(memory_format=LAST)
    x[0, 0, 6, 6] = torch.nan  # of one tile, this reaches the last of its four outputs alone
    weight = torch.randn(3, 4, 3, 3)
    out = convolve(x, weight, 2, pool=True, compiled=compiled)
    expected = F.max_pool2d(direct(x, weight, "zeros"), 2).isnan()
    assert expected[:, :, 2:, 2:].all()
    assert (out.isnan() | ~expected).all()


def test_images_that_need_no_gradient_get_none(compiled: bool) -> None:
    weight = nn.Parameter(torch.randn(4, 3, 3, 3))
    x = torch.randn(2, 3, 8, 8).to(memory_format=LAST)
    convolve(x, weight, 4, compiled=compiled).sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is None
    assert weight.grad is not None


def test_many_tiles_an_image_go_the_direct_way() -> None:
    assert winograd.best_side(128, 128, 64, 64)
    assert winograd.best_side(224, 224, 64, 64) is None


def test_what_comes_out_can_be_changed_in_place_and_be_empty() -> None:
    layer = Conv2d(64, 64, 3, padding=1, bias=False)
    layer.winograd = True
    x = torch.randn(2, 64, 8, 8).to(memory_format=LAST)
    layer(x).relu_().sum().backward()
    assert layer(x[:0]).shape == (0, 64, 8, 8)


@pytest.mark.parametrize(
    "pooling",
    [nn.MaxPool2d(3), nn.MaxPool2d(2, 1), nn.MaxPool2d(2, padding=1), nn.AvgPool2d(2)],
    ids=str,
)
def test_other_poolings_are_run_in_turn(pooling: nn.Module) -> None:
    layer = Conv2d(64, 64, 3, padding=1, bias=False)
    layer.winograd = True
    x = torch.randn(2, 64, 9, 9).to(memory_format=LAST)
    assert start_of_block([layer, pooling], x)[1] == [pooling]


def test_layers_with_hooks_are_called() -> None:
    block = custom_resnet.ConvBlock(64, 64, pool=True, dropout=0.1)
    block.to(memory_format=LAST)
    block[0].winograd = True
    called: list[nn.Module] = []
    for layer in block:
        layer.register_forward_hook(lambda layer, *_: called.append(layer))
    block(torch.randn(2, 64, 8, 8).to(memory_format=LAST))
    assert called == list(block)


@pytest.mark.parametrize("recipe", ["baseline", "fast90"])
def test_a_step_of_training_is_the_same_either_way(recipe: str) -> None:
    """And `runtime.winograd` decides which it is."""
    gradients = {}
    x = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    for way in (True, False):
        own = [f"runtime.winograd={way}"]
        if recipe == "baseline":
            own += ["model.dropout=0", "model.residual_dropout=0"]
        config = load_config(recipe, overrides=own, env={})
        torch.manual_seed(2)
        model = build_model(config.model, 10, 32, lambda: x)
        model = place_model(model, config, torch.device("cpu")).train()
        assert {m.winograd for m in model.modules() if isinstance(m, Conv2d)} == {way}
        loss = F.cross_entropy(model(x.to(memory_format=LAST)), torch.arange(6))
        with torch.profiler.profile() as profiled:
            loss.backward()  # type: ignore[no-untyped-call]
        assert ("_ConvolutionBackward" in {row.key for row in profiled.key_averages()}) == way
        gradients[way] = [p.grad for p in model.parameters() if p.grad is not None]
    for own_way, direct_way in zip(gradients[True], gradients[False], strict=True):
        # Of two nearly equal pixels, rounding may make the other one the maximum.
        assert error(own_way, direct_way) < 0.03
