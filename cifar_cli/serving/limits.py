"""How much a client may ask for."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

MOST_CONNECTIONS = 128
MOST_HEADER_BYTES = 16 * 2**10
MOST_HELD_BYTES = 256 * 2**20
"""Of the bodies of all requests at once; never less than one body may have."""
MOST_CLIENTS = 4096


@dataclass(frozen=True)
class Limits:
    """Those that the command line sets."""

    max_bytes: int
    """Of one body."""
    max_pixels: int
    """Of one picture."""
    rate: float
    """Requests a second, of one address."""
    timeout: float
    """Seconds for a header, and again for a body."""


class TokenBuckets:
    """A token bucket for each address: `rate` requests a second, and as many at once.

    The addresses that were seen last are remembered.
    """

    def __init__(self, rate: float, now: Callable[[], float] = time.monotonic) -> None:
        self.rate, self.most = rate, max(1.0, rate)
        self.now = now
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, address: str) -> int:
        """Take a token: 0, or the seconds until there is one, rounded up."""
        now = self.now()
        tokens, before = self._buckets.pop(address, (self.most, now))
        tokens = min(self.most, tokens + (now - before) * self.rate)
        is_free = tokens >= 1
        self._buckets[address] = (tokens - is_free, now)
        if len(self._buckets) > MOST_CLIENTS:
            self._buckets.popitem(last=False)
        return 0 if is_free else max(1, math.ceil((1 - tokens) / self.rate))
