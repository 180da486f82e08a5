"""Latency of `serve` under load, from requests that are sent when they are due.

python benchmarks/serving.py [RUN] [--rates 10,20,40] [--requests 1000] [--hostile 0.1] [--map]
    [--side 256] [--json]

Each request has its time, whether or not earlier ones are answered (open loop), and its latency
counts from that time. So a server that stalls is charged for all requests that waited. With
--hostile, that share more of the requests are bombs, truncated or random files, endless headers,
and clients that stop in the middle. Latencies are those of the good pictures. CPU is
the processor time of the server per request, which tells a slow server from a busy machine.

For the two-core figure of doc/benchmarks.md, on a machine that does nothing else:

    cifar-resnet train --recipe fast90 --data shapes --epochs 1 --limit-train 2000 --name fast90
    python benchmarks/serving.py fast90 --rates 20 --requests 10000 --hostile 0.1
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import itertools
import json
import os
import random
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

SECONDS = 60
EXPECTED = {"bomb": 413, "truncated": 422, "random": 415, "form": 400, "header": 400, "slow": 408}
"""Status of each hostile request. One that gets another, or none, is an error."""


class Outcome(NamedTuple):
    """One request."""

    kind: str
    status: int
    """0: no answer."""
    seconds: float
    """From the time when it was due."""


def picture(side: int, seed: int, format_: str = "JPEG") -> bytes:
    """A file of coarse noise, which is as large as a photograph of that size."""
    noise = np.random.default_rng(seed).integers(0, 256, (side // 4, side // 4, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).resize((side, side)).save(file, format_)
    return file.getvalue()


def bomb() -> bytes:
    """A PNG file of a few kilobytes that claims 50,000 x 50,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(2**20))
    parts = chunk(b"IHDR", header), chunk(b"IDAT", pixels), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def request(
    body: bytes, path: str = "/predict", headers: str = "", length: int | None = None
) -> bytes:
    """The bytes of a request."""
    size = len(body) if length is None else length
    lines = (
        f"POST {path} HTTP/1.1",
        "Host: localhost",
        "Connection: close",
        f"Content-Length: {size}",
    )
    return "\r\n".join([*lines, f"{headers}\r\n"]).encode() + body


def hostile(side: int) -> dict[str, bytes]:
    """The requests of `EXPECTED`."""
    good, noise = picture(side, 0), random.Random(0).randbytes(50_000)
    form = "Content-Type: multipart/form-data; boundary=x\r\n"
    return {
        "bomb": request(bomb()),
        "truncated": request(good[: len(good) // 2]),
        "random": request(noise),
        "form": request(b"--x\r\n" + noise, headers=form),
        "header": request(b"", headers=f"X-Long: {'y' * 100_000}\r\n"),
        "slow": request(good[:100], length=len(good)),  # the rest never comes
    }


async def send(port: int, kind: str, content: bytes, due: float) -> Outcome:
    """Send a request and wait for its answer."""
    status = 0
    with contextlib.suppress(OSError, ValueError, IndexError, TimeoutError):
        async with asyncio.timeout(SECONDS):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(content)
                status = int((await reader.readline()).split()[1])
                await reader.read()
            finally:
                writer.close()
    return Outcome(kind, status, time.perf_counter() - due)


async def load(
    port: int, rate: float, count: int, good: list[bytes], bad: dict[str, bytes], share: float
) -> list[Outcome]:
    """So many good requests a second, evenly spaced, and a share more of hostile ones."""
    draw = random.Random(1)
    start = time.perf_counter() + 0.1
    kinds = itertools.cycle(bad)
    tasks = []
    for number in range(count):
        due = start + number / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        content = good[number % len(good)]
        tasks.append(asyncio.create_task(send(port, "good", content, due)))
        if draw.random() < share:
            kind = next(kinds)
            tasks.append(asyncio.create_task(send(port, kind, bad[kind], due)))
    return await asyncio.gather(*tasks)


@contextlib.contextmanager
def server(run: str | None, rate: float) -> Iterator[tuple[int, int]]:
    """The real command: its process and its port, which was free."""
    command = [sys.executable, "-m", "cifar_cli", "serve", *([run] if run else []), "--port", "0"]
    limits = ["--rate", str(10 * rate + 100), "--timeout", "5"]
    process = subprocess.Popen([*command, *limits], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    line = process.stdout.readline().strip()
    if not line:
        raise SystemExit(process.wait())
    try:
        yield process.pid, int(line.rstrip("/").rpartition(":")[2])
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


def cpu_seconds(process: int) -> float:
    """What a process has used of all processors (Linux; elsewhere NaN)."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return float("nan")
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def row(rate: float, outcomes: list[Outcome], cpu: float) -> str:
    """A line of the table."""
    good = sorted(1000 * one.seconds for one in outcomes if one.kind == "good")
    wrong = Counter(
        f"{one.kind} {one.status or 'no answer'}"
        for one in outcomes
        if one.status != EXPECTED.get(one.kind, 200)
    )

    def quantile(q: float) -> float:
        return good[min(len(good) - 1, int(q * len(good)))]

    errors = ", ".join(f"{count} x {what}" for what, count in wrong.items()) or "0"
    figures = (quantile(0.5), quantile(0.95), quantile(0.99), good[-1], 1000 * cpu / len(outcomes))
    cells = [f"{rate:g}", f"{len(good):,}", f"{len(outcomes) - len(good):,}"]
    return "| " + " | ".join([*cells, *(f"{ms:.1f}" for ms in figures), errors]) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", nargs="?")
    parser.add_argument("--rates", default="20", help="good requests a second, with commas")
    parser.add_argument("--requests", type=int, default=1000, help="good ones, at each rate")
    parser.add_argument("--hostile", type=float, default=0.0, metavar="SHARE")
    parser.add_argument("--side", type=int, default=256, help="of the pictures, in pixels")
    parser.add_argument("--map", action="store_true", help="ask for activation maps")
    parser.add_argument("--json", action="store_true", help="print the outcomes instead")
    arguments = parser.parse_args()
    rates = [float(rate) for rate in arguments.rates.split(",")]
    path = "/predict?map=true" if arguments.map else "/predict"
    good = [request(picture(arguments.side, seed), path) for seed in range(20)]
    bad = hostile(arguments.side)
    for rate in rates:
        with server(arguments.run, rate) as (process, port):
            asyncio.run(load(port, rate, int(rate), good, {}, 0))  # warm
            before = cpu_seconds(process)
            outcomes = asyncio.run(
                load(port, rate, arguments.requests, good, bad, arguments.hostile)
            )
            cpu = cpu_seconds(process) - before
        if arguments.json:
            print(json.dumps(outcomes))
            continue
        if rate == rates[0]:
            heads = ["p50 ms", "p95 ms", "p99 ms", "max ms", "CPU ms", "errors"]
            print("| " + " | ".join(["requests/s", "good", "hostile", *heads]) + " |")
            print("|---" * (3 + len(heads)) + "|")
        print(row(rate, outcomes, cpu), flush=True)
    if hasattr(os, "getloadavg"):
        print(f"Load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors.")


if __name__ == "__main__":
    main()
