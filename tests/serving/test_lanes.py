"""Queues and buckets, without a network."""

from __future__ import annotations

import asyncio
import threading

import pytest

from cifar_cli.serving.lanes import Lane
from cifar_cli.serving.limits import MOST_CLIENTS, TokenBuckets
from cifar_cli.serving.refusals import Refused


def test_one_job_too_many_is_refused_and_the_others_are_done_together() -> None:
    go, batches = threading.Event(), []

    def double(jobs: list[int]) -> list[int]:
        go.wait()
        batches.append(len(jobs))
        return [2 * job for job in jobs]

    async def run() -> list[int]:
        lane = Lane(double, "numbers", batch=16, most=8)
        tasks = [asyncio.create_task(lane.do(n)) for n in range(8)]
        await asyncio.sleep(0.05)
        with pytest.raises(Refused, match="too many numbers wait") as refused:
            await lane.do(8)
        assert (refused.value.status, refused.value.retry_after) == (503, 1)
        go.set()
        found = await asyncio.gather(*tasks)
        assert await lane.do(9) == 18
        return found

    assert asyncio.run(run()) == [2 * n for n in range(8)]
    assert len(batches) <= 3


def test_a_job_that_fails_spoils_none_of_its_batch() -> None:
    go = threading.Event()

    def invert(jobs: list[int]) -> list[float]:
        go.wait()
        return [1 / job for job in jobs]

    async def run() -> list[object]:
        lane = Lane(invert, "numbers", batch=4)
        tasks = [asyncio.create_task(lane.do(n)) for n in (1, 2, 0, 4)]
        await asyncio.sleep(0.05)
        go.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    one, two, none, four = asyncio.run(run())
    assert (one, two, four) == (1, 0.5, 0.25)
    assert isinstance(none, ZeroDivisionError)


def test_a_bucket_gives_its_rate_to_each_address_and_forgets_old_ones() -> None:
    now = 0.0
    buckets = TokenBuckets(2, lambda: now)
    assert [buckets.take("a") for _ in range(4)] == [0, 0, 1, 1]
    assert buckets.take("b") == 0
    now = 0.5
    assert [buckets.take("a") for _ in range(2)] == [0, 1]
    now = 60
    assert sum(buckets.take("a") == 0 for _ in range(9)) == 2
    slow = TokenBuckets(0.1, lambda: now)
    assert [slow.take("a") for _ in range(2)] == [0, 10]
    for n in range(2 * MOST_CLIENTS):
        buckets.take(str(n))
    assert len(buckets._buckets) == MOST_CLIENTS
