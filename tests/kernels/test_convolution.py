"""Winograd's minimal filtering, by torch and compiled, against direct convolution."""

from __future__ import annotations

import threading

import pytest
import torch
from conftest import need_compiled_code
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from cifar_cli.kernels import compiled as compiled_code
from cifar_cli.kernels import layer as layer_sizes
from cifar_cli.kernels import torch_winograd
from cifar_cli.kernels.convolution import convolve
from cifar_cli.kernels.transforms import SIZES, transforms

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
    m=st.sampled_from(SIZES),
    padding_mode=st.sampled_from(["zeros", "reflect"]),
    batch=st.integers(1, 90),
    size=st.tuples(st.integers(2, 14), st.integers(2, 14)),
    channels=st.tuples(st.integers(1, 40), st.integers(1, 70)),
    seed=st.integers(0, 9),
)
def test_output_and_gradients_are_those_of_the_direct_way(
    m: int,
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
        patch.setattr(compiled_code, "MAX_OUTPUTS", 32)  # so that there are several parts
        out = convolve(x, weight, m, padding_mode, compiled=compiled)
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
    m=st.sampled_from(SIZES),
    reflect=st.booleans(),
    batch=st.integers(1, 40),
    size=st.tuples(st.integers(2, 14), st.integers(2, 14)),
    outputs=st.integers(1, 40),
    seed=st.integers(0, 9),
)
def test_pooled_at_once_is_pooled_after(
    m: int,
    reflect: bool,
    batch: int,
    size: tuple[int, int],
    outputs: int,
    seed: int,
    compiled: bool,
) -> None:
    """Piece by piece, with several pieces and several parts of the outputs: both are made small."""
    torch.manual_seed(seed)
    mode = "reflect" if reflect else "zeros"
    if compiled:
        m += m % 2
    x = torch.randn(batch, 3, *size).to(memory_format=LAST).requires_grad_()
    weight = torch.randn(outputs, 3, 3, 3, requires_grad=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch_winograd, "TILES", 30)
        patch.setattr(compiled_code, "MIN_TILES", 3)
        patch.setattr(compiled_code, "MAX_OUTPUTS", 32)
        # By the same tiles, as rounding decides which of two nearly equal pixels is the maximum.
        pixels = convolve(x, weight, m, mode, compiled=compiled)
        apart = F.max_pool2d(pixels, 2)
        out = convolve(x, weight, m, mode, pool=True, compiled=compiled)
        assert out.is_contiguous(memory_format=LAST)
        gradient = torch.randn_like(out)
        found = torch.autograd.grad(out, [x, weight], gradient)
    expected = torch.autograd.grad(apart, [x, weight], gradient)
    torch.testing.assert_close(out, apart, rtol=1e-4, atol=1e-4)
    assert error(found[0], expected[0]) < 1e-4
    assert error(found[1], expected[1]) < 1e-4


@settings(max_examples=60)
@given(
    m=st.sampled_from(SIZES),
    pool=st.booleans(),
    reflect=st.booleans(),
    batch=st.integers(1, 20),
    size=st.tuples(st.integers(2, 15), st.integers(2, 15)),
    channels=st.tuples(st.integers(1, 70), st.integers(1, 300)),
)
def test_compiled_code_keeps_to_its_memory(
    m: int,
    pool: bool,
    reflect: bool,
    batch: int,
    size: tuple[int, int],
    channels: tuple[int, int],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """It writes nothing beside its scratch memory; what it did not write there changes nothing."""
    need_compiled_code(tmp_path_factory)
    m += m % 2 if pool else 0
    beside, given_out = 1000, []

    def scratch(shape: tuple[int]) -> list[Tensor]:
        memory = torch.full((shape[0] + 2 * beside,), 12345.0)
        given_out.append(memory)
        return [memory[beside:-beside].fill_(torch.nan)]

    x = torch.randn(batch, channels[0], *size).to(memory_format=LAST).requires_grad_()
    weight = torch.randn(channels[1], channels[0], 3, 3, requires_grad=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled_code, "scratch", scratch)
        mode = "reflect" if reflect else "zeros"
        out = convolve(x, weight, m, mode, pool=pool, compiled=True)
        gradients = torch.autograd.grad(out, [x, weight], torch.ones_like(out))
    assert all(tensor.isfinite().all() for tensor in (out, *gradients))
    assert len(given_out) == 2
    for memory in given_out:
        assert (memory[:beside] == 12345).all()
        assert (memory[-beside:] == 12345).all()


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


def test_memory_kept_from_inference_serves_training(compiled: bool) -> None:
    """Tensors made in inference mode must not be written to outside of it."""
    weight = torch.randn(64, 64, 3, 3, requires_grad=True)
    x = torch.randn(2, 64, 8, 8).to(memory_format=LAST)
    transforms.cache_clear()
    layer_sizes._kept.__dict__.clear()
    with torch.inference_mode():
        expected = convolve(x, weight, 4, compiled=compiled).clone()
    out = convolve(x, weight, 4, compiled=compiled)
    out.sum().backward()
    assert torch.equal(out, expected)
    assert weight.grad is not None


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
