"""From `data.source` to images: the list of formats, asked in turn."""

from __future__ import annotations

from cifar_cli.config import DataConfig
from cifar_cli.config.fitting import Facts
from cifar_cli.data.sources.archive import ENDINGS, IMAGE_ARCHIVE
from cifar_cli.data.sources.cifar10 import ARCHIVE, CIFAR10_ARCHIVE, CIFAR10_BATCHES
from cifar_cli.data.sources.download import CIFAR10
from cifar_cli.data.sources.folder import CLASS_FOLDERS
from cifar_cli.data.sources.format import Format, Request
from cifar_cli.data.sources.shapes import SHAPES
from cifar_cli.data.sources.table import IMAGE_TABLE
from cifar_cli.data.types import Dataset, Progress
from cifar_cli.errors import DataError, OutOfMemoryError, nearest_hint
from cifar_cli.text import printable

FORMATS: tuple[Format, ...] = (
    CIFAR10,
    SHAPES,
    CIFAR10_ARCHIVE,
    CIFAR10_BATCHES,
    CLASS_FOLDERS,
    IMAGE_ARCHIVE,
    IMAGE_TABLE,
)
"""The first that matches a `data.source` reads it; keywords come first."""


def load_dataset(
    config: DataConfig, progress: Progress | None = None, suggested: str | None = None
) -> Dataset:
    """Load all images that `config.source` names.

    Args:
        config: Source, folder of downloads and caches, and size.
        progress: Called with the progress.
        suggested: Another folder that may hold CIFAR-10, such as the one a checkpoint names. It is
            only read, and ignored if it holds anything else.

    Raises:
        DataError: They cannot be found, downloaded, verified or decoded.
        OutOfMemoryError: They do not fit into memory.
    """
    request = Request(config, progress, suggested)
    size = config.image_size
    try:
        source = _format(request)
        if source.image_size not in (None, size):
            raise DataError(
                f"data.image_size {size}: {source.title} images are {source.image_size} pixels "
                "wide."
            )
        return source.load(request)
    except MemoryError as error:
        raise OutOfMemoryError(
            f"Out of memory: the images of {config.source}, decoded to {size} x {size} pixels, do "
            "not fit.",
            "Use fewer of them, a smaller data.image_size, or a machine with more memory.",
        ) from error


def count_classes(config: DataConfig) -> int:
    """Number of classes of `config.source`, without decoding an image.

    Raises:
        DataError: There is no such source.
    """
    request = Request(config)
    return _format(request).count_classes(request)


def facts_of(config: DataConfig) -> Facts | None:
    """What is known of pictures of the user's own; None for CIFAR-10, `shapes`, and their classes.

    Raises:
        DataError: There is no such source, or it is arranged in no known way.
    """
    request = Request(config)
    return _format(request).facts(request)


def needs_download(config: DataConfig) -> bool:
    """Whether `load_dataset` would have to download the images.

    Raises:
        DataError: There is no such source.
    """
    request = Request(config)
    return _format(request).needs_download(request)


def _format(request: Request) -> Format:
    for candidate in FORMATS:
        if candidate.matches(request):
            return candidate
    source, path = printable(request.data.source), request.path
    if path.is_file():
        raise DataError(
            f"--data {source!r} is a file of no known kind: expected an archive of class folders "
            f"({', '.join(ENDINGS)}), a .csv file of path,label, or CIFAR-10's {ARCHIVE}.",
            "Unpack it, and give the folder that holds the class folders.",
        )
    if path.exists():
        raise DataError(f"--data {source!r} is neither a folder nor a regular file.")
    keywords = [known.keyword for known in FORMATS if known.keyword]
    raise DataError(
        f"--data {source!r}{nearest_hint(source, keywords)}: not one of {', '.join(keywords)}, and "
        "no file or folder of that name exists."
    )
