"""HTTP with limits for the whole exchange: time until the response, and time for each block.

A socket's time limit holds for one gap only. A server that sends a byte now and then, or endless
interim responses, or an endless line, would never exceed it.
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

# Status lines, headers and redirects; a real one has about one kilobyte.
HEAD_BYTES = 2**20
REDIRECT_BYTES = 2**16


class Limit:
    """A deadline, and how many bytes may still be received."""

    def __init__(self, seconds: float, byte_count: int | None = None) -> None:
        self.renew(seconds, byte_count)

    def renew(self, seconds: float, byte_count: int | None = None) -> None:
        """Reset both. None: any number of bytes."""
        self.seconds, self.bytes_left = seconds, byte_count
        self.until = time.monotonic() + seconds

    def seconds_left(self) -> float:
        """Seconds until the deadline.

        Raises:
            TimeoutError: It has passed.
        """
        left = self.until - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"timed out after {self.seconds:g} s")
        return left

    def count(self, received: int) -> None:
        """Count received bytes.

        Raises:
            OSError: There are too many.
        """
        if self.bytes_left is not None:
            self.bytes_left -= received
            if self.bytes_left < 0:
                raise OSError("its answer has too many headers")


def open_url(request: urllib.request.Request, limit: Limit) -> Any:
    """Open a URL as `urllib.request.urlopen` does, with everything received under `limit`.

    Raises:
        OSError, HTTPException, ValueError: As `urlopen` does, and if the limit is exceeded.
    """
    # Without FTP: a redirect could lead to it, and it has no such limit.
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        _handler(limit),
        _FileHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener.open(request, timeout=limit.seconds_left())


class _FileHandler(urllib.request.FileHandler):
    """`file:` addresses of regular files only: a FIFO or a device would block."""

    def open_local_file(self, request: urllib.request.Request) -> Any:
        open_regular(Path(urllib.request.url2pathname(request.selector))).close()
        return super().open_local_file(request)


class _LimitedReader(io.RawIOBase):
    """What a socket receives, within the limit."""

    def __init__(self, connection: socket.socket, limit: Limit) -> None:
        self.connection, self.limit = connection, limit
        # As in http.client: the socket is really closed once this is closed too.
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
            # urllib reads redirects to their end, into a buffer of the length that they claim.
            return super().read(REDIRECT_BYTES if amt is None else amt)

    return Response


def _handler(limit: Limit) -> urllib.request.BaseHandler:
    """Opens `http:` and `https:` addresses with connections that are read under `limit`."""
    response = _response_class(limit)

    class Plain(http.client.HTTPConnection):
        response_class = response  # type: ignore[assignment]

    class Secure(http.client.HTTPSConnection):
        response_class = response  # type: ignore[assignment]

    class Handler(urllib.request.AbstractHTTPHandler):
        def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(Plain, request)

        def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(Secure, request)

        http_request = https_request = urllib.request.AbstractHTTPHandler.do_request_

    return Handler()
