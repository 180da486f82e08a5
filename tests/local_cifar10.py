"""A small archive in the form of CIFAR-10's, and a server on localhost with many faults."""

from __future__ import annotations

import hashlib
import io
import pickle
import struct
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import numpy as np

from cifar_cli.data.sources import cifar10, download

NAMES = (*cifar10.TRAIN_BATCHES, *cifar10.TEST_BATCHES)


class Python2Pickler(pickle._Pickler):
    """Writes texts and bytes alike as Python 2 wrote its strings, as the original batches are."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def save_string(self, value: str | bytes) -> None:
        data = value.encode("latin1") if isinstance(value, str) else value
        self.write(b"T" + struct.pack("<i", len(data)) + data)
        self.memoize(value)

    dispatch[str] = dispatch[bytes] = save_string


class Bomb:
    """Makes a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.path,))


def python2_pickle(value: object) -> bytes:
    buffer = io.BytesIO()
    Python2Pickler(buffer, protocol=2).dump(value)
    return buffer.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def batch(seed: int, count: int = 20) -> bytes:
    """A batch as the original ones are: channel-first rows, string keys, protocol 2."""
    rng = np.random.default_rng(seed)
    content = {
        "data": rng.integers(0, 256, (count, 3072), dtype=np.uint8),
        "labels": [int(i) for i in rng.integers(0, 10, count)],
        "batch_label": "training batch",
        "filenames": ["x.png"] * count,
    }
    return python2_pickle(content)


def small_batches() -> dict[str, bytes]:
    """All six batches by name, noise."""
    return {name: batch(seed) for seed, name in enumerate(NAMES)}


def write_folder(folder: Path, batches: dict[str, bytes]) -> Path:
    """Unpacked batches; returns the folder that holds them."""
    target = folder / cifar10.FOLDER
    target.mkdir(parents=True)
    for name, data in batches.items():
        (target / name).write_bytes(data)
    return target


def write_archive(path: Path, batches: dict[str, bytes], **others: bytes) -> Path:
    """An archive of batches, and of `others` by their whole name."""
    members = {f"{cifar10.FOLDER}/{name}": data for name, data in batches.items()}
    with tarfile.open(path, "w:gz") as archive:
        for name, data in {**others, **members}.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def publish_batches(
    batches: dict[str, bytes], set_: Callable[[object, str, object], None] = setattr
) -> None:
    """Take the checksums of `batches` for the published ones."""
    md5 = {name: hashlib.md5(data).hexdigest() for name, data in batches.items()}
    for constant in ("TRAIN_BATCHES", "TEST_BATCHES"):
        set_(cifar10, constant, {name: md5[name] for name in getattr(cifar10, constant)})


def publish_archive(data: bytes, set_: Callable[[object, str, object], None] = setattr) -> None:
    """Take `data` for the published archive, and forget where the real one is."""
    for module in (cifar10, download):
        set_(module, "ARCHIVE_MD5", hashlib.md5(data).hexdigest())
        set_(module, "ARCHIVE_BYTES", len(data))
    set_(download, "SOURCES", ())


class Server(ThreadingHTTPServer):
    """Serves `content` in ways that paths name, and notes each request's way, range and time."""

    daemon_threads = True

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content = content
        self.ways: list[str] = []
        self.ranges: list[str | None] = []
        self.times: list[float] = []
        self.closing = threading.Event()

    def url(self, way: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{way}"

    def handle_error(self, *_: object) -> None:
        """A client that went away is part of the game."""


_CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
# By way: what is sent once, and what again and again, so many seconds apart.
ENDLESS_HEADS: dict[str, tuple[bytes, bytes, float]] = {
    "digits-in-status": (b"HTTP/1.1 2", b"0", 0.05),
    "digits-in-length": (b"HTTP/1.1 200 OK\r\nContent-Length: ", b"1", 0.05),
    "letters-in-header": (b"HTTP/1.1 200 OK\r\nX: ", b"x", 0.05),
    "continues": (b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.05),
    "continues-fast": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000, 0.0),
    "digits-in-chunk": (_CHUNKED, b"0", 0.05),
    "trailers": (_CHUNKED + b"5\r\n12345\r\n0\r\n", b"X: y\r\n", 0.05),
    "trailers-fast": (_CHUNKED + b"5\r\n12345\r\n0\r\n", b"X: y\r\n" * 1000, 0.0),
}


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        content, way = self.server.content, self.path.strip("/")
        self.server.ways.append(way)
        self.server.ranges.append(self.headers["Range"])
        self.server.times.append(time.monotonic())
        if way == "missing":
            self.send_error(404)
            return
        if way == "long-reason":
            self.send_response_only(500, "x" * 5000)
            self.end_headers()
            return
        if way.startswith("leads-to-"):
            self.send_response(302)
            self.send_header(
                "Location", "ftp://127.0.0.1/x" if way == "leads-to-ftp" else "/missing"
            )
            self.send_header("Content-Length", "9" * 12)
            self.end_headers()
            self.wfile.write(bytes(10**6))
            return
        if way == "5000-digits":
            self.send_response(200)
            self.send_header("Content-Length", "9" * 5000)
            self.end_headers()
            return
        if way == "silent":
            self.server.closing.wait(30)
            return
        if way in ENDLESS_HEADS:
            self._send_head(*ENDLESS_HEADS[way])
            return
        start = 0
        if self.headers["Range"] and way != "no-resume":
            start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
        bodies = {
            "rubbish": bytes(len(content)),
            "page": b"<html>",
            "plain-page": b"<html>",
            "long": content + b"!" * 999,
        }
        data = bodies.get(way, content)[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Type", "text/html" if way == "page" else "application/gzip")
        if way != "unsized-long":
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self._send(way, data + (b"!" * 999 if way == "unsized-long" else b""))

    def _send_head(self, once: bytes, again: bytes, gap: float) -> None:
        """Begin an answer that never gets to its end, or to its first block."""
        self.wfile.write(once)
        while not self.server.closing.wait(gap):
            self.wfile.write(again)

    def _send(self, way: str, data: bytes) -> None:
        if way == "breaks":
            self.wfile.write(data[: len(data) * 5 // 12])
        elif way == "stalls":
            self.wfile.write(data[:100_000])
            self.server.closing.wait(30)
        elif way in ("slow", "trickle"):
            step = 15_000 if way == "slow" else 1
            for begin in range(0, min(len(data), 300 * step), step):
                self.wfile.write(data[begin : begin + step])
                time.sleep(0.1)
        else:
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(content: bytes) -> Iterator[Server]:
    """A server of `content` that runs."""
    with Server(content) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.closing.set()
        server.shutdown()
