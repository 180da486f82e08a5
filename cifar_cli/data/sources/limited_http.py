"""HTTP whose exchanges are limited as a whole: the time until an answer, and for each block.

A time limit of a socket holds for one gap only: a server that sends a byte now and then, interim
answers without end, or a line without end would never exceed it.
"""

from __future__ import annotations

import http.client
import io
import socket
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cifar_cli.storage import open_regular

# Of status lines, headers and answers that lead elsewhere; a real one has about one kilobyte.
HEAD_BYTES = 2**20
REDIRECT_BYTES = 2**16


class Limit:
    """When what is under way must be done, and how many bytes it may still take."""

    def __init__(self, seconds: float, byte_count: int | None = None) -> None:
        self.renew(seconds, byte_count)

    def renew(self, seconds: float, byte_count: int | None = None) -> None:
        """Set both anew; None: any number of bytes."""
        self.seconds, self.bytes_left = seconds, byte_count
        self.until = time.monotonic() + seconds

    def seconds_left(self) -> float:
        """What is left of the time.

        Raises:
            TimeoutError: Nothing is.
        """
        left = self.until - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"timed out after {self.seconds:g} s")
        return left

    def count(self, received: int) -> None:
        """Note bytes that came.

        Raises:
            OSError: They are too many.
        """
        if self.bytes_left is not None:
            self.bytes_left -= received
            if self.bytes_left < 0:
                raise OSError("its answer has too many headers")


def open_url(request: urllib.request.Request, limit: Limit) -> Any:
    """Open a URL as `urllib.request.urlopen` does, all that is received under `limit`.

    Raises:
        OSError, HTTPException, ValueError: As `urlopen` does, and where the limit is exceeded.
    """
    # Without FTP, to which an answer could lead and which knows no such limit.
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        _http_handler(limit),
        _https_handler(limit),
        _FileHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener.open(request, timeout=limit.seconds_left())


class _FileHandler(urllib.request.FileHandler):
    """`file:` addresses of regular files: a FIFO or a device would hold everything up."""

    def open_local_file(self, request: urllib.request.Request) -> Any:
        open_regular(Path(urllib.request.url2pathname(request.selector))).close()
        return super().open_local_file(request)


class _LimitedReader(io.RawIOBase):
    """What a socket receives, until the limit says stop."""

    def __init__(self, connection: socket.socket, limit: Limit) -> None:
        self.connection, self.limit = connection, limit
        # As http.client has it: the socket is really closed when this is, too.
        self.raw = connection.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self.connection.settimeout(self.limit.seconds_left())
        count = self.raw.readinto(buffer)
        self.limit.count(count or 0)
        return count

    def close(self) -> None:
        if not self.closed:
            self.raw.close()
        super().close()


def _response_class(limit: Limit) -> Callable[..., http.client.HTTPResponse]:
    class Response(http.client.HTTPResponse):
        def __init__(self, sock: socket.socket, *arguments: Any, **options: Any) -> None:
            super().__init__(sock, *arguments, **options)
            self.fp.close()
            self.fp = io.BufferedReader(_LimitedReader(sock, limit))

        def read(self, amt: int | None = None) -> bytes:
            # urllib reads answers that lead elsewhere to their end, into a buffer of the length
            # that they claim to have.
            return super().read(REDIRECT_BYTES if amt is None else amt)

    return Response


def _http_handler(limit: Limit) -> urllib.request.HTTPHandler:
    class Connection(http.client.HTTPConnection):
        response_class = _response_class(limit)  # type: ignore[assignment]

    class Handler(urllib.request.HTTPHandler):
        def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(Connection, request)

    return Handler()


def _https_handler(limit: Limit) -> urllib.request.HTTPSHandler:
    class Connection(http.client.HTTPSConnection):
        response_class = _response_class(limit)  # type: ignore[assignment]

    class Handler(urllib.request.HTTPSHandler):
        def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(Connection, request)

    return Handler()
