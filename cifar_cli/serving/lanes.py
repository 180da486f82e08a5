"""Threads that work beside the event loop, each group with a bounded queue."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import SimpleQueue
from typing import Generic, NamedTuple, TypeVar

from cifar_cli.serving.refusals import busy

Job = TypeVar("Job")
Result = TypeVar("Result")


class _Waiting(NamedTuple, Generic[Job, Result]):
    job: Job
    future: asyncio.Future[Result]


class Lane(Generic[Job, Result]):
    """Threads that take jobs from one queue. They end with the process.

    Args:
        work: Does several jobs, and returns their results in order.
        name: What waits, for the refusal of one job too many.
        threads: Number of threads.
        batch: Most jobs that a thread takes at once.
        most: Jobs that may wait or be in work.
    """

    def __init__(
        self,
        work: Callable[[list[Job]], Sequence[Result]],
        name: str,
        *,
        threads: int = 1,
        batch: int = 1,
        most: int = 64,
    ) -> None:
        self.work, self.name, self.batch, self.most = work, name, batch, most
        self.num_jobs = 0
        self._queue: SimpleQueue[_Waiting[Job, Result]] = SimpleQueue()
        self.threads = [threading.Thread(target=self._run, daemon=True) for _ in range(threads)]
        for thread in self.threads:
            thread.start()

    async def do(self, job: Job) -> Result:
        """The result of a job, or the exception that it raised.

        Raises:
            Refused: Too many jobs wait.
        """
        if self.num_jobs >= self.most:
            raise busy(f"too many {self.name} wait")
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self.num_jobs += 1
        try:
            self._queue.put(_Waiting(job, future))
            return await future
        finally:
            self.num_jobs -= 1

    def _run(self) -> None:
        while True:
            taken = [self._queue.get()]
            while len(taken) < self.batch and not self._queue.empty():
                taken.append(self._queue.get())
            try:
                outcomes: Sequence[Result | BaseException] = self.work([one.job for one in taken])
            except BaseException as error:
                alone = [[one] for one in taken] if len(taken) > 1 else []
                outcomes = [self._alone(one[0].job) for one in alone] or [error]
            for one, outcome in zip(taken, outcomes, strict=True):
                with suppress(RuntimeError):  # the loop has ended
                    one.future.get_loop().call_soon_threadsafe(_end, one.future, outcome)
            del taken, outcomes  # which hold pictures until the next one comes

    def _alone(self, job: Job) -> Result | BaseException:
        """The outcome of a job whose batch failed."""
        try:
            return self.work([job])[0]
        except BaseException as error:
            return error


def _end(future: asyncio.Future[Result], outcome: Result | BaseException) -> None:
    if future.done():  # given up
        return
    if isinstance(outcome, BaseException):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
