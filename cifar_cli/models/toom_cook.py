"""The transforms of Winograd's minimal filtering, by Toom and Cook's way, in exact numbers.

A convolution is a product of polynomials: both factors are evaluated at a few points and infinity,
multiplied there, and the product is interpolated.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

POINTS = (0, 1, -1, 2, -2, Fraction(1, 2), Fraction(-1, 2))
SIDES = (2, 3, 4, 5, 6)
"""Of an output tile; beyond them, rounding grows."""

Line = Sequence[Fraction]


def lines(side: int) -> tuple[list[Line], list[Line], list[Line]]:
    """Of a line of pixels: the transforms of the image, the filter and the output, as matrices.

    (n, n), (n, 3) and (side, n), with n = side + 2.
    """
    n = side + 2
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
        output.append(_powers(point, side))
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
