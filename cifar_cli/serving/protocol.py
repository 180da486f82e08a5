"""HTTP connections with limits of time and number, on uvicorn's protocol."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from cifar_cli.serving.limits import MOST_CONNECTIONS, MOST_HEADER_BYTES
from cifar_cli.serving.refusals import Refused, busy

SMALL_CHUNK, MOST_SMALL_CHUNKS = 256, 1000
READ_BYTES = MOST_HEADER_BYTES  # a header that is complete is not measured
LINGER_SECONDS = 1.0


def protocol_class(seconds: float) -> type[Connection]:
    """The protocol, with a limit of time for headers and for the reading of answers."""
    return type("Connection", (Connection,), {"seconds": seconds})


class Connection(H11Protocol):
    """A connection that ends if its client lets it wait.

    Its client must send a header, and take an answer, within `seconds`. If there are too many
    connections, the one that has waited longest for its client is dropped, so that clients that
    send nothing keep no one out.
    """

    seconds = 20.0

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.conn = _FewChunks(h11.SERVER, MOST_HEADER_BYTES)
        self._timer: asyncio.TimerHandle | None = None
        self._is_silent = True
        self._is_ending = False
        self.since = self.loop.time()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Make room for it, and wait for a header."""
        super().connection_made(transport)
        if hasattr(transport, "max_size"):  # of one read, which is handled without a pause
            transport.max_size = READ_BYTES
        if len(self.connections) > MOST_CONNECTIONS:
            waiting = [c for c in self.connections if isinstance(c, Connection) and c.waits]
            oldest = min(waiting, key=lambda connection: connection.since, default=None)
            if oldest is None or oldest is self:
                self._end(busy("it has too many connections"))
                return
            oldest.transport.abort()
            self.connections.discard(oldest)
        self._watch()

    @property
    def waits(self) -> bool:
        """Whether it is the client's turn."""
        cycle = self.cycle
        return self._is_ending or cycle is None or cycle.response_complete or cycle.more_body

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what the client sends."""
        if self._is_ending:
            return
        self._is_silent = False
        super().data_received(data)
        if not self._is_ending:
            self._watch()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        self.since = self.loop.time()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """Give the client its time to take what was sent."""
        super().pause_writing()
        self._stop_timer()
        self._timer = self.loop.call_later(self.seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """It has taken it."""
        self._stop_timer()
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP, or too large a header."""
        self._end(Refused(400, "The request is not HTTP, or its header is too large."))

    def _watch(self) -> None:
        """Wait for a header while there is none."""
        if self.conn.their_state is not h11.IDLE:
            self._stop_timer()
        elif self._timer is None:
            self._timer = self.loop.call_later(self.seconds, self._be_late)

    def _be_late(self) -> None:
        if self._is_silent:  # as a browser opens them in advance
            self.transport.abort()
        else:
            sentence = f"No request arrived within {self.seconds:g} seconds."
            self._end(Refused(408, sentence))

    def _end(self, refused: Refused) -> None:
        """Close the connection, with an answer unless one is on its way."""
        self._stop_timer()
        cycle = self.cycle
        has_answered = cycle is not None and cycle.response_started and not cycle.response_complete
        if has_answered or self.transport.is_closing():
            self.transport.close()
            return
        self._is_ending = True
        self.transport.write(refused.as_bytes())
        if cycle is not None:  # the application learns that the client is gone
            cycle.disconnected = True
            cycle.message_event.set()
        # Closed at once, the connection would be reset before the client reads the answer.
        self.transport.write_eof()
        self._timer = self.loop.call_later(LINGER_SECONDS, self.transport.abort)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _FewChunks(h11.Connection):
    """Refuses a body in thousands of tiny chunks, each of which costs as much as a large one."""

    num_small = 0

    def next_event(self) -> Any:
        event = super().next_event()
        if type(event) is h11.Data and len(event.data) < SMALL_CHUNK:
            self.num_small += 1
            if self.num_small > MOST_SMALL_CHUNKS:
                raise h11.RemoteProtocolError("too many small chunks")
        elif type(event) is h11.Request:
            self.num_small = 0
        return event
