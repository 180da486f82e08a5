"""The server: its socket, its life, and what is switched off in the libraries."""

from __future__ import annotations

import asyncio
import errno
import gc
import ipaddress
import logging
import socket
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import uvicorn

from cifar_cli.errors import ConfigError
from cifar_cli.serving.application import BATCH, application
from cifar_cli.serving.gate import Gate
from cifar_cli.serving.lanes import Lane
from cifar_cli.serving.limits import Limits, TokenBuckets
from cifar_cli.serving.model import Answer, Job, ServedModel
from cifar_cli.serving.protocol import protocol_class

GRACE_SECONDS = 1
"""For the requests that are in work at the end."""
SWITCH_SECONDS = 0.0005
"""After so long, a thread that decodes gives way to the event loop, ten times as soon as usual."""


def serve(
    model: ServedModel,
    limits: Limits,
    listener: socket.socket,
    names: Iterable[str],
    ready: Callable[[], None],
    report: Callable[[str], None],
) -> None:
    """Answer requests until a signal comes, which is raised again at the end.

    Args:
        model: What is served.
        limits: How much a client may ask for.
        listener: A socket that listens.
        names: Names of hosts that a browser may ask for.
        ready: Called once, before the first request.
        report: Called with a sentence for each error of the program.
    """
    network: Lane[Job, Answer] = Lane(model.classify, "pictures", batch=BATCH)
    app = Gate(application(model, limits, network), TokenBuckets(limits.rate), names, report)
    config = uvicorn.Config(
        app,
        http=protocol_class(limits.timeout),
        loop="asyncio",
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    size = model.rules.size
    black = Job(np.zeros((size, size, 3), np.uint8), top=1, with_map=True)

    async def run() -> None:
        await network.do(black)  # a thread's first picture takes longest
        ready()
        await uvicorn.Server(config).serve(sockets=[listener])

    with _quiet():
        asyncio.run(run())


def bind(host: str, port: int) -> socket.socket:
    """A socket for an address; port 0: any that is free.

    Raises:
        ConfigError: The address cannot be used.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind)
    except (OSError, UnicodeError) as error:
        raise ConfigError(
            f"--host {host}: not an address of this machine ({error}).", "Use 127.0.0.1."
        ) from error
    try:
        if sys.platform != "win32":  # where it would take a port from another program
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()
    except OSError as error:
        listener.close()
        raise _no_port(host, port, error) from error
    return listener


def _no_port(host: str, port: int, error: OSError) -> ConfigError:
    if error.errno == errno.EADDRINUSE:
        return ConfigError(
            f"--port {port}: the port is in use on {host}.",
            "Give another one, or --port 0 for any that is free.",
        )
    if error.errno == errno.EACCES:
        return ConfigError(
            f"--port {port}: ports below 1024 need more rights.", "Give a higher one, such as 8000."
        )
    return ConfigError(
        f"--host {host}: not an address of this machine ({error.strerror or error}).",
        "Use 127.0.0.1.",
    )


def address_of(listener: socket.socket) -> str:
    """The address of the page."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def is_open(listener: socket.socket) -> bool:
    """Whether other machines can reach it."""
    return not ipaddress.ip_address(listener.getsockname()[0].partition("%")[0]).is_loopback


def names_of(listener: socket.socket, hosts: Iterable[str]) -> set[str]:
    """Names of hosts that a browser may ask for, with those given."""
    own = socket.gethostname()
    return {"localhost", *hosts, *([own, f"{own}.local"] if is_open(listener) else [])}


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what libraries log and warn of, and with threads that take turns quickly."""
    disabled, seconds = logging.root.manager.disable, sys.getswitchinterval()
    logging.disable(logging.CRITICAL)
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.collect()
    gc.freeze()  # a collection need not look at torch's thousands of objects
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        gc.unfreeze()
        sys.setswitchinterval(seconds)
        logging.disable(disabled)
