"""What a kind of source of images has to say of itself; `load.FORMATS` lists all of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from cifar_cli.config import DataConfig
from cifar_cli.config.fitting import Facts
from cifar_cli.data.cache import home
from cifar_cli.data.types import Dataset, Progress


class Request(NamedTuple):
    """What `load_dataset` was asked for."""

    data: DataConfig
    progress: Progress | None = None
    suggested: str | None = None
    """Another folder that may hold a download; it is only read."""

    @property
    def path(self) -> Path:
        return Path(self.data.source).expanduser()

    @property
    def cache(self) -> Path:
        """Folder of downloads and caches."""
        return home(self.data.dir)


class Format(NamedTuple):
    """One kind of source. A new kind is one file, and one line in `load.FORMATS`."""

    title: str
    load: Callable[[Request], Dataset]
    count_classes: Callable[[Request], int]
    """Number of classes, without decoding an image."""
    facts: Callable[[Request], Facts | None] = lambda request: None
    """What is known of pictures of the user's own, without decoding them; None: it has others."""
    keyword: str | None = None
    """The value of `data.source` that means this kind."""
    recognises: Callable[[Path], bool] = lambda path: False
    """Whether what lies at a path is of this kind."""
    image_size: int | None = None
    """The only size of its images in pixels; None: any, as they are resized."""
    needs_download: Callable[[Request], bool] = lambda request: False

    def matches(self, request: Request) -> bool:
        return request.data.source == self.keyword or self.recognises(request.path)
