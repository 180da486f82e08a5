"""Classes of picture files, in batches: files are decoded in threads beside the network."""

from __future__ import annotations

import os
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeVar

from cifar_cli.analysis.trained import Trained
from cifar_cli.analysis.unlike import unlike_scores
from cifar_cli.data.finding import Found
from cifar_cli.data.inputs import Pixels, file_pixels, stacked
from cifar_cli.data.sources.pixels import NoImageError, Rules
from cifar_cli.errors import DataError

CHUNK = 32  # files that a thread decodes in one go
MAX_THREADS = 8
T = TypeVar("T")


class Classified(NamedTuple):
    """One file."""

    file: str
    predictions: tuple[tuple[str, float], ...] = ()
    """The likeliest classes with their probabilities; none of a file that cannot be read."""
    unlike: bool | None = None
    """Whether it is unlike the training data; None: unknown."""
    error: str | None = None
    """Why it cannot be read."""


class Decoded(NamedTuple):
    file: str
    pixels: Pixels | None
    error: str | None = None


def classify_files(
    trained: Trained,
    found: Iterable[Found],
    *,
    top: int = 5,
    batch_size: int | None = None,
    threshold: float | None = None,
) -> Iterator[Classified]:
    """Classify files in order. At most three batches are in memory, however many files there are.

    Args:
        trained: The network.
        found: The files, taken as they are needed.
        top: Number of classes to name.
        batch_size: Images that the network takes at once; None: as many as suit the device.
        threshold: Score below which a picture is unlike the training data; None: unknown.

    Raises:
        DivergedError: An output of the network is not finite.
    """
    rules = Rules.of(trained.config.data)
    top = min(top, len(trained.class_names))
    size = batch_size or trained.runtime.eval_batch(rules.size)

    def decode(files: tuple[Found, ...]) -> list[Decoded]:
        return [_decode(one, rules) for one in files]

    threads = min(MAX_THREADS, os.cpu_count() or 1)
    # Pillow warns about files that it reads anyway. The filter holds for the whole process.
    with warnings.catch_warnings(), ThreadPoolExecutor(threads) as pool:
        warnings.simplefilter("ignore")
        chunks = _ahead(pool, _batches(found, min(CHUNK, size)), decode, 2 * -(-size // CHUNK))
        try:
            for batch in _batches((one for chunk in chunks for one in chunk), size):
                yield from classify_decoded(trained, batch, top, threshold)
        finally:
            pool.shutdown(cancel_futures=True)


def _batches(items: Iterable[T], size: int) -> Iterator[tuple[T, ...]]:
    iterator = iter(items)
    while batch := tuple(islice(iterator, size)):
        yield batch


def _ahead(
    pool: ThreadPoolExecutor,
    chunks: Iterator[tuple[Found, ...]],
    decode: Callable[[tuple[Found, ...]], list[Decoded]],
    count: int,
) -> Iterator[list[Decoded]]:
    """Decode chunks in order, so many ahead of the one that is used."""
    pending: deque[Future[list[Decoded]]] = deque()
    for chunk in chunks:
        try:
            pending.append(pool.submit(decode, chunk))
        except RuntimeError:  # no thread can be started
            while pending:
                yield pending.popleft().result()
            yield decode(chunk)
        if len(pending) > count:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


def _decode(found: Found, rules: Rules) -> Decoded:
    if found.error:
        return Decoded(found.file, None, found.error)
    try:
        return Decoded(found.file, file_pixels(Path(found.file), rules))
    except NoImageError as error:
        return Decoded(found.file, None, str(error))
    except DataError as error:
        return Decoded(found.file, None, error.what.rstrip("."))
    except MemoryError:
        return Decoded(found.file, None, "there is too little memory to decode it")


def classify_decoded(
    trained: Trained, batch: tuple[Decoded, ...], top: int, threshold: float | None
) -> Iterator[Classified]:
    pixels = [one.pixels for one in batch if one.pixels is not None]
    logits = trained.logits(stacked(pixels, trained.config.data.image_size))
    shares, classes = logits.double().softmax(1).topk(top, dim=1)
    scores = unlike_scores(logits).tolist()
    rows = zip(shares.tolist(), classes.tolist(), scores, strict=True)
    for one in batch:
        if one.pixels is None:
            yield Classified(one.file, error=one.error)
            continue
        own, numbers, score = next(rows)
        names = (trained.class_names[number] for number in numbers)
        is_unlike = None if threshold is None else score < threshold
        yield Classified(one.file, tuple(zip(names, own, strict=True)), is_unlike)
