"""The transforms of Winograd's minimal filtering F(m x m, 3 x 3), in exact numbers (Toom-Cook).

A convolution is a product of polynomials: both factors are evaluated at a few points and infinity,
multiplied there, and the product is interpolated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import torch
from torch import Tensor

POINTS = (0, 1, -1, 2, -2, Fraction(1, 2), Fraction(-1, 2))
SIZES = (2, 3, 4, 5, 6)
"""Pixels along a side of an output tile; with more, rounding errors grow."""

Line = Sequence[Fraction]


@dataclass(frozen=True)
class Transforms:
    """The transforms for both axes at once, float32."""

    image: Tensor
    """(n^2, n^2), n = m + 2: an input tile to where products are taken."""
    kernel: Tensor
    """(n^2, 9): a filter to there."""
    output: Tensor
    """(m^2, n^2): products, summed over the inputs, to an output tile."""


@lru_cache(maxsize=len(SIZES))
def transforms(m: int) -> Transforms:
    """Those of output tiles of m x m pixels."""
    with torch.inference_mode(False):
        return Transforms(*map(_for_both_axes, lines(m)))


def _for_both_axes(matrix: list[Line]) -> Tensor:
    rows = [[float(value) for value in row] for row in matrix]
    one = torch.tensor(rows, dtype=torch.float32, device="cpu")
    return torch.kron(one, one)


def lines(m: int) -> tuple[list[Line], list[Line], list[Line]]:
    """Of a line of pixels: the transforms of the image, the filter and the output, as matrices.

    (n, n), (n, 3) and (m, n), with n = m + 2.
    """
    n = m + 2
    points = [Fraction(p) for p in POINTS[: n - 1]]
    interpolation = _inverse([_powers(p, n) for p in points] + [_powers(None, n)])
    image: list[Line] = []
    kernel: list[Line] = []
    output: list[Line] = []
    for index, point in enumerate([*points, None]):
        row = [interpolation[power][index] for power in range(n)]
        denominator = Fraction(1, max(value.denominator for value in row))
        image.append([value / denominator for value in row])  # small whole numbers, exact
        kernel.append([value * denominator for value in _powers(point, 3)])
        output.append(_powers(point, m))
    return image, kernel, transposed(output)


def transposed(matrix: Sequence[Line]) -> list[Line]:
    """Rows to columns."""
    return [list(column) for column in zip(*matrix, strict=True)]


def _powers(point: Fraction | None, count: int) -> list[Fraction]:
    """1, p, p^2, ...; at infinity the highest one alone."""
    if point is None:
        return [Fraction(0)] * (count - 1) + [Fraction(1)]
    return [point**power for power in range(count)]


def _inverse(matrix: list[list[Fraction]]) -> list[list[Fraction]]:
    """Of a square matrix, exactly (Gauss and Jordan)."""
    size = len(matrix)
    rows = [[*row, *(Fraction(i == j) for j in range(size))] for i, row in enumerate(matrix)]
    for i in range(size):
        pivot = next(k for k in range(i, size) if rows[k][i])
        rows[i], rows[pivot] = rows[pivot], rows[i]
        rows[i] = [value / rows[i][i] for value in rows[i]]
        for k in range(size):
            if k != i:
                factor = rows[k][i]
                rows[k] = [a - factor * b for a, b in zip(rows[k], rows[i], strict=True)]
    return [row[size:] for row in rows]
