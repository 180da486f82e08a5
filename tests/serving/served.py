"""The real `serve` in a process of its own, and a client that sees each byte of an answer."""

from __future__ import annotations

import http.client
import io
import json
import re
import socket
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from processes import Running


class Reply(NamedTuple):
    """An answer of the server."""

    status: int
    headers: http.client.HTTPMessage
    content: bytes

    @property
    def json(self) -> Any:
        """The document in it."""
        return json.loads(self.content)


class Served:
    """A running server."""

    def __init__(self, running: Running, port: int) -> None:
        self.running, self.port = running, port

    def ask(
        self,
        path: str = "/predict",
        body: bytes | Iterator[bytes] | None = None,
        method: str | None = None,
        **headers: str,
    ) -> Reply:
        """Send a request; underscores in the names of headers are hyphens."""
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            own = {name.replace("_", "-"): value for name, value in headers.items()}
            client.request(method or ("GET" if body is None else "POST"), path, body, own)
            answer = client.getresponse()
            return Reply(answer.status, answer.headers, answer.read())
        finally:
            client.close()

    def connect(self, content: bytes = b"") -> socket.socket:
        """A connection on which that was sent."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        connection.sendall(content)
        return connection


@contextmanager
def serving(folder: Path, *arguments: object) -> Iterator[Served]:
    """`cifar-resnet serve ARGUMENTS --port 0` in a folder, until the end of the block."""
    running = Running(folder, "serve", *arguments, "--port", "0")
    try:
        running.wait_for(lambda: re.search(r"http://\S+:\d+/\n", running.text()))
        found = re.search(r"http://\S+:(\d+)/\n", running.text())
        assert found
        yield Served(running, int(found[1]))
    finally:
        running.process.kill()
        running.process.join()


def picture(side: int = 40, format_: str = "PNG", seed: int = 0) -> bytes:
    """A file of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format_)
    return file.getvalue()


def bomb() -> bytes:
    """A PNG file of a few kilobytes that claims 50,000 x 50,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(bytes(2**20))), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def form(name: str, content: bytes) -> bytes:
    """The body of a form with one file; its boundary is `x`."""
    head = f'--x\r\nContent-Disposition: form-data; name="{name}"; filename="<a>"\r\n\r\n'
    return head.encode() + content + b"\r\n--x--\r\n"
