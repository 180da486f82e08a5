"""ReLU and dropout in one."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cifar_cli.kernels import accelerate
from cifar_cli.kernels.relu_dropout import SPARSE, relu_dropout_
from cifar_cli.models.custom_resnet import ConvBlock


@settings(max_examples=40)
@given(
    p=st.floats(0, 0.999, exclude_min=True), layout=st.sampled_from(["channels_last", "contiguous"])
)
def test_dropout_drops_the_share_and_scales_the_rest(p: float, layout: str) -> None:
    form = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    x = torch.ones(8, 16, 15, 17).to(memory_format=form).requires_grad_()
    out = relu_dropout_(x * 2, p)
    assert out.is_contiguous(memory_format=form)
    kept = out.detach() != 0
    expected = p * x.numel()
    # Of rare drops, one or two more than expected are nothing unusual.
    assert abs(int((~kept).sum()) - expected) <= 6 * expected**0.5 + 6
    torch.testing.assert_close(out.detach()[kept], torch.full((int(kept.sum()),), 2 / (1 - p)))
    out.sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    torch.testing.assert_close(x.grad, out.detach())


def test_relu_and_dropout_in_one_are_the_two_in_turn() -> None:
    x = torch.randn(4, 3, 8, 8, requires_grad=True)
    out = relu_dropout_(x * 1, 0.25)
    mask = torch.where(out != 0, 1 / 0.75, 0.0)
    torch.testing.assert_close(out, x.relu() * mask)
    (out**2).sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    torch.testing.assert_close(x.grad, 2 * x.relu() * mask**2)


@pytest.mark.parametrize("p", [0.2, 0.5], ids=["own", "torch's"])
def test_dropout_is_drawn_anew_repeats_with_the_seed_and_rests_in_evaluation(p: float) -> None:
    block, x = ConvBlock(3, 8, dropout=p), torch.randn(16, 3, 16, 16)
    accelerate(block)
    torch.manual_seed(3)
    first, second = block(x), block(x)
    assert not torch.equal(first, second)
    torch.manual_seed(3)
    assert torch.equal(block(x), first)
    assert ("_ReluDropout" in str(first.grad_fn)) == (p <= SPARSE)
    assert (first == 0).double().mean() > 0.45 + p / 2
    block.eval()
    assert torch.equal(block(x), block(x))
    assert (block(x) == 0).double().mean() < 0.55


def test_neighbours_are_dropped_independently() -> None:
    kept = (relu_dropout_(torch.ones(1, 1, 512, 512), 0.5) != 0).double().flatten() - 0.5
    for distance in (1, 2, 3, 4, 8):
        together = (kept[:-distance] * kept[distance:]).mean().item() * 4
        assert abs(together) < 5 / kept.numel() ** 0.5, distance
    halves = kept.view(2, -1).mean(1)  # no less likely where one draw of gaps ends
    assert halves.abs().max() < 5 / kept.numel() ** 0.5
