"""What every request passes before it reaches the application, and every answer after it."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cifar_cli.serving.bodies import Incoming, refusal
from cifar_cli.serving.limits import TokenBuckets
from cifar_cli.serving.refusals import Refused

CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": CONTENT_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "x-frame-options": "DENY",
}
_HOST = re.compile(r"(?:\[([\da-fA-F:.]+)\]|([\w.-]+))(?::\d{1,5})?", re.ASCII)


class Gate:
    """Checks the host, the page that asks, and the rate; adds headers of security to answers.

    Args:
        app: The application.
        buckets: The rate.
        names: Names of hosts that a browser may ask for.
        report: Called with a sentence for each error of the program.
    """

    def __init__(
        self,
        app: ASGIApp,
        buckets: TokenBuckets,
        names: Iterable[str],
        report: Callable[[str], None],
    ) -> None:
        self.app, self.buckets, self.report = app, buckets, report
        self.names = {name.lower() for name in names}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        incoming = Incoming(receive)

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("cache-control", "no-store")
            await send(message)

        try:
            self._check(scope)
            await self.app(scope, incoming, guarded)
        except ClientDisconnect:
            return
        except Refused as refused:
            await (await refusal(Request(scope, incoming), refused))(scope, incoming, guarded)
        except Exception as error:  # answered by the application
            self.report(f"Internal error: {type(error).__name__}: {error}")

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not self._is_own(host):
            raise Refused(
                400,
                f"This server is not called {host!r:.80}. Use its address, or name the host with "
                "--allow-host.",
            )
        if scope["method"] == "POST" and headers.get("sec-fetch-site") == "cross-site":
            raise Refused(403, "Pages of other sites may not use this server.")
        address = (scope.get("client") or ("",))[0]
        if scope["path"] != "/healthz" and (seconds := self.buckets.take(address)):
            raise Refused(
                429,
                f"More than {self.buckets.rate:g} requests a second came from your address.",
                seconds,
            )

    def _is_own(self, host: str) -> bool:
        """Whether a Host header names this server; an address does.

        Another site can have its own name lead to this server, but not an address (DNS rebinding).
        """
        found = _HOST.fullmatch(host)
        if not found:
            return False
        name = (found[1] or found[2]).lower()
        try:
            return name in self.names or bool(ipaddress.ip_address(name))
        except ValueError:
            return False
