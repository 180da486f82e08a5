"""A kill at the calls by which a run's files come, move and go, one after the other."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from kills import check, count_calls

STRIDE = 7  # all of them take minutes: `make soak`


@pytest.mark.fault(1)
@pytest.mark.parametrize("how", ["kill", "full"])
def test_a_run_that_breaks_at_any_call_resumes_in_place_to_equal_weights(
    in_tmp: Path, how: str
) -> None:
    calls, whole = count_calls(in_tmp / "whole")
    assert calls > 50
    # The first ones, before there is a configuration or a checkpoint, are the most delicate.
    chosen = sorted({*range(1, calls + 1, STRIDE), *range(2, 12, 3)})
    with ThreadPoolExecutor(2) as pool:
        faults = pool.map(lambda n: check(in_tmp / f"{n}", n, how, whole), chosen)
        assert [fault for fault in faults if fault] == []
