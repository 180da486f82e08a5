"""Moving Winograd's tiles by compiled code, where this machine has gcc.

torch can only transform tiles by matrix products, most of whose factors are zeros and ones; that
takes as long as the products of the convolution themselves. `tiles.c` has the same as straight
lines of vector operations. It is compiled once for a machine, in seconds, and kept.
"""

from __future__ import annotations

import ctypes
import hashlib
import math
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from torch import Tensor

from cifar_cli.models.tiles import Layer, scratch
from cifar_cli.models.toom_cook import SIDES, Line, lines, transposed

COMPILERS = ("gcc", "cc")  # the first one that is there
FLAGS = ("-O3", "-march=native", "-fPIC", "-std=gnu11", "-fopenmp")
SECONDS = 120.0  # after which compiling is given up
MOST_BYTES = 2**22  # of the tiles of a piece: they are to lie in the caches

_loaded: ctypes.CDLL | None = None
_problem: str | None = None


def load(folder: Path) -> bool:
    """Make the compiled code usable, compiling it where it is not in `folder` yet.

    Returns:
        Whether that was possible; found out once for a process.
    """
    global _loaded, _problem
    if _loaded is None and _problem is None:
        found = _library(folder)
        _loaded, _problem = (None, found) if isinstance(found, str) else (found, None)
    return is_loaded()


def is_loaded() -> bool:
    """Whether the compiled code can be used."""
    return _loaded is not None


def problem() -> str:
    """Why it cannot be used."""
    return _problem or "nobody has asked for it"


def _library(folder: Path) -> ctypes.CDLL | str:
    """The library, or why there is none."""
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        return "there is no C compiler"
    try:
        source = c_source()
        # Which machine `native` means is told by what the compiler defines for it.
        machine = _run([compiler, *FLAGS, "-dM", "-E", "-x", "c", os.devnull])
        key = hashlib.sha256("\0".join([source, *FLAGS]).encode() + machine).hexdigest()[:16]
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _is_own(folder):
            return f"others may write to {folder}"
        for kept in folder.glob(f"tiles-{key}-*.so"):
            # Damaged machine code would end the whole process.
            if _is_own(kept) and kept.stem.endswith(_digest(kept)):
                return ctypes.CDLL(os.fspath(kept))
        with tempfile.TemporaryDirectory(dir=folder) as place:
            made = Path(place) / "tiles.so"
            _compile(compiler, source, made)
            kept = folder / f"tiles-{key}-{_digest(made)}.so"
            made.chmod(0o700)
            made.replace(kept)
        return ctypes.CDLL(os.fspath(kept))
    except subprocess.CalledProcessError as error:
        lines = error.stderr.decode(errors="replace").strip().splitlines()
        return f"{compiler} failed: {lines[-1] if lines else error}"
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)


def _is_own(path: Path) -> bool:
    """Whether nobody else can have put there what is about to be run."""
    about = path.stat()
    return not hasattr(os, "geteuid") or (
        about.st_uid == os.geteuid() and not about.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    )


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]


def _compile(compiler: str, source: str, target: Path) -> None:
    code, compiled = target.with_suffix(".c"), target.with_suffix(".o")
    code.write_text(source, encoding="utf-8")
    _run([compiler, *FLAGS, "-c", os.fspath(code), "-o", os.fspath(compiled)])
    # Linked without OpenMP's library: torch's own is found when loading, and a second one would
    # bring threads of its own.
    _run([compiler, "-shared", os.fspath(compiled), "-o", os.fspath(target)])


def _run(command: Sequence[str]) -> bytes:
    done = subprocess.run(
        command, check=True, capture_output=True, timeout=SECONDS, stdin=subprocess.DEVNULL
    )
    return done.stdout


def c_source() -> str:
    """`tiles.c` for all sizes of tiles, each with its transforms in front."""
    head, body = (
        resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
        for name in ("tiles.h", "tiles.c")
    )
    return head + "".join(f"{_definitions(side)}\n{body}" for side in SIDES)


def _definitions(side: int) -> str:
    image, _, output = lines(side)
    matrices = {
        "image": image,
        "image_transposed": transposed(image),
        "output": output,
        "output_transposed": transposed(output),
    }
    functions = [_function(name, matrix) for name, matrix in matrices.items()]
    sizes = [f"#define SIDE {side}", f"#define SPREAD {side + 2}", f"#define NAME(f) f##_{side}"]
    return "\n".join(["", *sizes, *functions])


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


class NativeTiles:
    """`TorchTiles` by compiled code; the same methods. Pooled, sides must be even."""

    def __init__(self, layer: Layer) -> None:
        assert _loaded is not None
        assert not (layer.pool and layer.side % 2)
        self.layer, self.library = layer, _loaded
        # A last row or column that no pooling takes in is not computed.
        rows, columns = ((n - n % 2 if layer.pool else n) for n in (layer.height, layer.width))
        self.grid = -(-rows // layer.side), -(-columns // layer.side)
        self.tiles, spread = self.grid[0] * self.grid[1], (layer.side + 2) ** 2
        bytes_of_image = 4 * spread * self.tiles * max(layer.inputs, layer.outputs)
        self.images = min(layer.batch, max(1, MOST_BYTES // bytes_of_image))
        rows = _odd(self.images * self.tiles)
        self.inputs, self.sums = scratch(
            (spread, rows, layer.inputs), (spread, rows, layer.outputs)
        )

    def read_images(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) to transformed tiles, (n^2, at least tiles, C)."""
        tiles = self._first(self.inputs, len(x))
        self._call("read_images", [x, tiles], len(x), self.layer.inputs, self.layer.reflect)
        return tiles

    def room(self, images: int) -> Tensor:
        """For the sums of products of so many images, (n^2, at least tiles, K)."""
        return self._first(self.sums, images)

    def write_outputs(self, sums: Tensor, out: Tensor, places: Tensor | None) -> None:
        """Sums to outputs (B, H, W, K), or pooled ones where there are `places` to write too."""
        if places is None:
            self._call("write_outputs", [sums, out], len(out), self.layer.outputs)
        else:
            self._call("write_outputs_pooled", [sums, out, places], len(out), self.layer.outputs)

    def read_gradients(self, gradient: Tensor, places: Tensor | None) -> Tensor:
        """The gradient of outputs to that of the sums; `write_outputs` transposed."""
        sums, count = self.room(len(gradient)), len(gradient)
        if places is None:
            self._call("read_gradients", [gradient, sums], count, self.layer.outputs)
        else:
            self._call("read_gradients_pooled", [gradient, places, sums], count, self.layer.outputs)
        return sums

    def write_gradients(self, tiles: Tensor, of_x: Tensor) -> None:
        """The gradient of transformed tiles to that of the images; `read_images` transposed."""
        inputs, reflect = self.layer.inputs, self.layer.reflect
        self._call("write_gradients", [tiles, of_x], len(of_x), inputs, reflect)

    def _first(self, room: Tensor, images: int) -> Tensor:
        spread, _, channels = room.shape
        shape = (spread, _odd(images * self.tiles), channels)
        return room.view(-1)[: math.prod(shape)].view(shape)

    def _call(
        self, name: str, tensors: list[Tensor], images: int, channels: int, *last: int
    ) -> None:
        pointers = [ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors]
        layer, step = self.layer, _odd(images * self.tiles) * channels
        numbers = [images, layer.height, layer.width, *self.grid, step, channels, *last]
        function = getattr(self.library, f"{name}_{layer.side}")
        function(*pointers, *(ctypes.c_long(number) for number in numbers))


def _odd(tiles: int) -> int:
    """Room for so many tiles: an odd number, whose last one may be of no use.

    Else the n^2 places of a tile, which are written in turn, would lie a power of two apart, and
    share a few lines of the cache.
    """
    return tiles | 1
