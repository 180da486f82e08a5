"""Write `cifar_cli/kernels/c/transforms.h`: Winograd's transforms of a line of pixels, in C.

    python tests/kernels/write_transforms.py

`cifar_cli.kernels.transforms` has them as exact matrices. Here they become straight lines of vector
operations. Two rows of a matrix that are the sum and the difference of two others share these.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cifar_cli import kernels
from cifar_cli.kernels.transforms import SIZES, Line, lines, transposed

HEADER = Path(kernels.__file__).parent / "c" / "transforms.h"
START = """#ifndef TRANSFORMS_H
#define TRANSFORMS_H

/* Written by tests/kernels/write_transforms.py. The transforms of a line of pixels for output tiles
   of 2 to 6 pixels a side: from vectors X, `from` apart, to vectors Y, `to` apart. */

#include "vectors.h"

#define TRANSFORM(name) \\
    INLINE void name(const lanes *in, const long from, lanes *out, const long to)
#define X(i) in[i * from]
#define Y(i) out[i * to]
#define SUM_AND_DIFFERENCE(a, b, x, y) \\
    { const lanes s = x, d = y; Y(a) = s + d; Y(b) = s - d; }
"""


def written() -> str:
    """The whole header."""
    functions = [_function(name, m, matrix) for m in SIZES for name, matrix in _matrices(m).items()]
    undefined = [f"#undef {name}" for name in ("TRANSFORM", "X", "Y", "SUM_AND_DIFFERENCE")]
    return "\n".join([START, *functions, *undefined, "\n#endif\n"])


def _matrices(m: int) -> dict[str, Sequence[Line]]:
    image, _, output = lines(m)
    return {
        "image": image,
        "image_transposed": transposed(image),
        "output": output,
        "output_transposed": transposed(output),
    }


def _function(name: str, m: int, matrix: Sequence[Line]) -> str:
    inside = "\n".join(f"    {statement}" for statement in _statements(matrix))
    return f"TRANSFORM({name}_{m}) {{\n{inside}\n}}\n"


def _statements(matrix: Sequence[Line]) -> list[str]:
    """A matrix times a vector."""
    statements, left = [], list(range(len(matrix)))
    while left:
        a = left.pop(0)
        for b in left:
            halves = [[(x + y) / 2, (x - y) / 2] for x, y in zip(matrix[a], matrix[b], strict=True)]
            total, difference = transposed(halves)
            if _terms(total) + _terms(difference) + 2 < _terms(matrix[a]) + _terms(matrix[b]):
                left.remove(b)
                parts = f"{_sum(total)}, {_sum(difference)}"
                statements.append(f"SUM_AND_DIFFERENCE({a}, {b}, {parts})")
                break
        else:
            statements.append(f"Y({a}) = {_sum(matrix[a])};")
    return statements


def _terms(row: Line) -> int:
    return sum(value != 0 for value in row)


def _sum(row: Line) -> str:
    text = ""
    for index, value in enumerate(row):
        if value:
            factor = "" if abs(value) == 1 else f"{float(abs(value))!r}f * "
            text += f" {'-' if value < 0 else '+'} {factor}X({index})"
    return text.removeprefix(" +").strip()


if __name__ == "__main__":
    HEADER.write_text(written(), encoding="utf-8")
