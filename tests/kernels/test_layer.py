"""The choice of tiles, and their transforms."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cifar_cli.kernels.layer import best_m
from cifar_cli.kernels.transforms import SIZES, transforms


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
    ("height", "width", "inputs", "outputs", "expected"),
    [
        (32, 32, 64, 128, 4),
        (4, 4, 512, 512, 4),
        (3, 3, 192, 192, 3),
        (5, 5, 192, 192, 5),
        (6, 6, 192, 192, 6),
        (32, 32, 3, 64, None),  # too few channels to pay for the transforms
        (32, 32, 8, 8, None),
        (13, 13, 64, 64, None),  # was slower than torch's own convolution
        (32, 32, 64, 64, None),
        (1, 4, 512, 512, None),
    ],
)
def test_tiles_fit_the_image_where_they_pay(
    height: int, width: int, inputs: int, outputs: int, expected: int | None
) -> None:
    assert best_m(height, width, inputs, outputs) == expected


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
    assert best_m(side, side, inputs, outputs, compiled=True, pool=pool) == expected


@given(
    st.integers(1, 40), st.integers(1, 40), st.integers(1, 300), st.integers(1, 300), st.booleans()
)
def test_compiled_tiles_are_pooled_whole(
    height: int, width: int, inputs: int, outputs: int, pool: bool
) -> None:
    m = best_m(height, width, inputs, outputs, compiled=True, pool=pool)
    assert m is None or m in SIZES
    assert not (pool and m and m % 2)


def test_an_image_of_too_many_tiles_is_convolved_directly() -> None:
    assert best_m(128, 128, 128, 128)
    assert best_m(224, 224, 128, 128) is None
