"""What a client gets instead of classes: a status, and one sentence in JSON."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

from cifar_cli.rundir import SCHEMA_VERSION
from cifar_cli.text import printable


class Refused(Exception):  # noqa: N818 - the request is at fault, or the moment
    """A request that is not answered with classes.

    Args:
        status: Status code of HTTP.
        sentence: What is wrong, and what to do about it.
        retry_after: Seconds after which it may be tried again; None: it would fail again.
    """

    def __init__(self, status: int, sentence: str, retry_after: int | None = None) -> None:
        super().__init__(sentence)
        self.status, self.sentence, self.retry_after = status, printable(sentence), retry_after

    @property
    def headers(self) -> dict[str, str]:
        """Those of the answer. The connection is closed, as a part of the body may be unread."""
        own = {} if self.retry_after is None else {"retry-after": str(self.retry_after)}
        return own | {"connection": "close", "cache-control": "no-store"}

    @property
    def body(self) -> bytes:
        """The keys of an answer with classes, and the sentence."""
        return ascii_json(document([], None, self.sentence))

    def as_bytes(self) -> bytes:
        """The whole answer, for a connection on which no request was understood."""
        phrase = HTTPStatus(self.status).phrase
        headers = self.headers | {
            "content-type": "application/json",
            "content-length": str(len(self.body)),
            "x-content-type-options": "nosniff",
        }
        lines = [f"HTTP/1.1 {self.status} {phrase}", *(f"{k}: {v}" for k, v in headers.items())]
        return "\r\n".join([*lines, "", ""]).encode("ascii") + self.body


def busy(what: str) -> Refused:
    """A refusal because too much is being done already."""
    return Refused(503, f"The server is busy: {what}. Try again in a moment.", retry_after=1)


def document(
    predictions: list[dict[str, Any]], unlike: bool | None, error: str | None, **more: Any
) -> dict[str, Any]:
    """An answer, with the keys of an image of `predict --json`."""
    keys = {"predictions": predictions, "unlike": unlike, "error": error}
    return {"schema_version": SCHEMA_VERSION} | keys | more


def ascii_json(value: object) -> bytes:
    """JSON in ASCII: names of classes may be no Unicode text."""
    text = json.dumps(value, allow_nan=False)
    return text.replace("\x7f", "\\u007f").encode("ascii")
