"""A run that breaks at one of the calls by which its files come, move and go."""

from __future__ import annotations

from pathlib import Path

import pytest
from kills import count_calls, sweep


@pytest.mark.fault(1, 3)
@pytest.mark.fault(63)
def test_a_run_that_breaks_at_any_call_resumes_in_place_to_equal_weights(in_tmp: Path) -> None:
    calls, whole = count_calls(in_tmp / "whole")
    assert calls > 50
    # The first ones, before there is a configuration or a checkpoint, are the most delicate. All of
    # them take minutes: see `make soak`.
    killed = [*range(1, 12, 2), *range(14, calls, 9), calls]
    assert sweep(in_tmp, "kill", killed, whole) == []
    assert sweep(in_tmp, "full", range(4, calls + 1, 24), whole) == []
