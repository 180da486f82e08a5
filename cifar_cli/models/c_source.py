"""The C code of Winograd's convolutions: the transforms written out for each size of tiles."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources

from cifar_cli.models.toom_cook import SIDES, Line, lines, transposed

EXPORTED = (
    *("panel", "size_of_layer"),
    *(f"{name}_{side}" for name in ("forward", "backward") for side in SIDES),
)
"""What a library that is compiled from it has."""

_FORGOTTEN = "".join(f"#undef {name}\n" for name in ("SIDE", "SPREAD", "NAME"))


def c_source() -> str:
    """All of it: `tiles.c` and `winograd.c` for each size, with its transforms in front."""
    files = [
        resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
        for name in ("tiles.h", "products.h", "tiles.c", "winograd.c")
    ]
    body = "".join(files[2:])
    sizes = [f"{_definitions(side)}\n{body}{_FORGOTTEN}" for side in SIDES]
    return "".join([*files[:2], *sizes])


def _definitions(side: int) -> str:
    image, _, output = lines(side)
    matrices = {
        "image": image,
        "image_transposed": transposed(image),
        "output": output,
        "output_transposed": transposed(output),
    }
    functions = [_function(name, matrix) for name, matrix in matrices.items()]
    defined = [f"#define SIDE {side}", f"#define SPREAD {side + 2}", f"#define NAME(f) f##_{side}"]
    return "\n".join(["", *defined, *functions])


def _function(name: str, matrix: Sequence[Line]) -> str:
    inside = "\n".join(f"    {statement}" for statement in _statements(matrix))
    arguments = "const lanes *in, const long from, lanes *out, const long to"
    return f"INLINE void NAME({name})({arguments})\n{{\n{inside}\n}}"


def _statements(matrix: Sequence[Line]) -> list[str]:
    """A matrix times a vector. Two rows that are a sum and a difference share their halves."""
    found, left = [], list(range(len(matrix)))
    while left:
        a = left.pop(0)
        for b in left:
            halves = [[(x + y) / 2, (x - y) / 2] for x, y in zip(matrix[a], matrix[b], strict=True)]
            total, rest = transposed(halves)
            if _terms(total) + _terms(rest) + 2 < _terms(matrix[a]) + _terms(matrix[b]):
                left.remove(b)
                found.append(
                    f"{{ const lanes s = {_sum(total)}, d = {_sum(rest)}; "
                    f"out[{a} * to] = s + d; out[{b} * to] = s - d; }}"
                )
                break
        else:
            found.append(f"out[{a} * to] = {_sum(matrix[a])};")
    return found


def _terms(row: Line) -> int:
    return sum(value != 0 for value in row)


def _sum(row: Line) -> str:
    text = ""
    for position, value in enumerate(row):
        if value:
            size = abs(value)
            factor = "" if size == 1 else f"{float(size)!r}f * "
            text += f" {'-' if value < 0 else '+'} {factor}in[{position} * from]"
    return text.removeprefix(" +").strip()
