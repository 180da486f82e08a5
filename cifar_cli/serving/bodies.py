"""The bytes of a picture from the body of a request, within limits of size and time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive

from cifar_cli.serving.limits import MOST_HELD_BYTES, Limits
from cifar_cli.serving.refusals import Refused, busy

DRAIN_SECONDS = 2.0
_STEP = 64 * 2**10


class Bodies:
    """Reads bodies, and knows how many bytes all of them hold."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.held = 0

    @asynccontextmanager
    async def picture(self, request: Request) -> AsyncIterator[bytes]:
        """The content of the picture file in a request: its body, or the part `file` of a form.

        Raises:
            Refused: It is too large, too slow, or not a form with that part.
            ClientDisconnect: The client has gone.
        """
        size = 0
        parts = []
        try:
            async with asyncio.timeout(self.limits.timeout):
                self._check_length(request)
                async for chunk in request.stream():
                    size += len(chunk)
                    self.held += len(chunk)
                    if size > self.limits.max_bytes:
                        raise self._too_large()
                    if self.held > max(MOST_HELD_BYTES, self.limits.max_bytes):
                        raise busy("too many pictures are being sent")
                    parts.append(chunk)
            body = b"".join(parts)
            parts.clear()
            yield await _file_of(request, body) if _is_form(request) else body
        except TimeoutError:
            raise Refused(
                408, f"The picture did not arrive within {self.limits.timeout:g} seconds."
            ) from None
        finally:
            self.held -= size

    def _check_length(self, request: Request) -> None:
        length = request.headers.get("content-length", "0")  # digits, as the server has checked
        if len(length) > 15 or int(length) > self.limits.max_bytes:
            raise self._too_large()

    def _too_large(self) -> Refused:
        return Refused(413, f"The picture has more than {self.limits.max_bytes:,} bytes.")


class Incoming:
    """The messages of a request, as ASGI's `receive`, which knows when the body is over."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.is_over = False

    async def __call__(self) -> Message:
        """The next message."""
        message = await self._receive()
        self.is_over = message["type"] != "http.request" or not message.get("more_body")
        return message

    async def drain(self) -> None:
        """Read the rest of a body that nobody wants, for two seconds at most.

        Otherwise the connection would be reset while the client sends, before it reads the answer.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                while not self.is_over:
                    await self()


async def refusal(request: Request, refused: Refused) -> Response:
    """The answer of a refused request, once the client has sent its body."""
    expects = request.headers.get("expect", "").lower() == "100-continue"
    incoming = request.receive
    if request.method == "POST" and refused.status != 408 and not expects:
        assert isinstance(incoming, Incoming)
        await incoming.drain()
    return Response(refused.body, refused.status, refused.headers, "application/json")


def _is_form(request: Request) -> bool:
    kind = request.headers.get("content-type", "")
    return kind.partition(";")[0].strip().lower() == "multipart/form-data"


class _InMemory(MultiPartParser):
    spool_max_size = 2**40  # the body is in memory already


async def _file_of(request: Request, body: bytes) -> bytes:
    async def stream() -> AsyncGenerator[bytes, None]:
        for start in range(0, len(body), _STEP):
            yield body[start : start + _STEP]
            await asyncio.sleep(0)  # other requests come first
        yield b""

    try:
        form = await _InMemory(request.headers, stream(), max_files=1, max_fields=10).parse()
        file = form.get("file")
    except (MultiPartException, KeyError, ValueError, AssertionError) as error:
        raise Refused(
            400, "The form cannot be read: it is damaged, or has several files."
        ) from error
    if not isinstance(file, UploadFile):
        raise Refused(400, "The form has no file in a part named file.")
    return await file.read()
