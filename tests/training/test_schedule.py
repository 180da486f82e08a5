"""The one-cycle schedule, against torch's own and against values worked out by hand."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from cifar_cli.config import Config
from cifar_cli.config.schema import AdamConfig, OneCycleConfig
from cifar_cli.training.optim import apply_settings, build_optimizer
from cifar_cli.training.schedule import one_cycle


def torchs_schedule(config: OneCycleConfig, max_lr: float, total: int) -> list[tuple[float, float]]:
    optimizer = torch.optim.Adam([nn.Parameter(torch.zeros(1))])
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=max_lr,
        total_steps=total,
        pct_start=config.pct_start,
        anneal_strategy="linear",
        div_factor=config.div_factor,
        final_div_factor=config.final_div_factor,
    )
    values = []
    for step in range(total):
        group = optimizer.param_groups[0]
        values.append((group["lr"], group["betas"][0]))
        optimizer.step()
        if step < total - 1:
            schedule.step()
    return values


@given(
    st.integers(2, 60),
    st.floats(0.02, 0.98),
    st.floats(1e-5, 10),
    st.floats(1, 1e4),
    st.floats(1, 1e4),
)
def test_every_step_equals_torchs_one_cycle(
    total: int, pct_start: float, max_lr: float, div_factor: float, final_div_factor: float
) -> None:
    config = OneCycleConfig(
        pct_start=pct_start, div_factor=div_factor, final_div_factor=final_div_factor
    )
    if pct_start * total <= 1 + 1e-9:
        return  # torch divides by zero, or starts behind the peak; see the next test
    reference = torchs_schedule(config, max_lr, total)
    ours = [one_cycle(step, total, max_lr, config) for step in range(total)]
    for got, (lr, beta1) in zip(ours, reference, strict=True):
        assert got.lr == pytest.approx(lr, rel=1e-9, abs=max_lr * 1e-12)
        assert got.beta1 == pytest.approx(beta1, rel=1e-9)


@given(st.integers(1, 12), st.floats(0.001, 0.999))
def test_the_shortest_runs_have_sane_rates(total: int, pct_start: float) -> None:
    config = OneCycleConfig(pct_start=pct_start)
    for step in range(total):
        lr, beta1 = one_cycle(step, total, 0.1, config)
        assert 0 < lr <= 0.1 * (1 + 1e-9)
        assert 0.85 - 1e-9 <= beta1 <= 0.95 + 1e-9


def test_the_course_projects_schedule_at_its_corners() -> None:
    config = Config()
    total = 24 * 98

    def at(step: int) -> float:
        return one_cycle(step, total, 0.0465, config.schedule).lr

    assert at(0) == pytest.approx(0.0465 / 2000)
    assert at(5 * 98 - 1) == pytest.approx(0.0465)  # the peak ends the fifth epoch
    assert at(total - 1) == pytest.approx(0.0465 / 2000 / 100)
    assert at(97) == pytest.approx(0.0465 / 2000 + (0.0465 - 0.0465 / 2000) * 97 / 489)
    assert one_cycle(489, total, 0.0465, config.schedule).beta1 == pytest.approx(0.85)


@pytest.mark.parametrize("share", [5 / 24, 0.5, 0.9])
def test_a_run_of_one_step_trains_at_the_peak(share: float) -> None:
    assert one_cycle(0, 1, 0.1, OneCycleConfig(pct_start=share)) == pytest.approx((0.1, 0.85))


def test_adams_steps_equal_the_formula() -> None:
    weight = nn.Linear(1, 1, bias=False)
    nn.init.constant_(weight.weight, 2.0)
    optimizer = build_optimizer(weight, AdamConfig(weight_decay=0.1), lr=0.01)
    apply_settings(optimizer, one_cycle(0, 10, 0.5, OneCycleConfig(div_factor=10)))
    expected, first, second = 2.0, 0.0, 0.0
    for step, slope in enumerate((1.0, -0.5), start=1):  # after one step alone, its sign decides
        optimizer.zero_grad()
        (slope * weight(torch.ones(1, 1))).sum().backward()
        optimizer.step()
        gradient = slope + 0.1 * expected  # L2: the penalty's gradient comes before Adam's averages
        first = 0.95 * first + 0.05 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        size = (second / (1 - 0.999**step)) ** 0.5 + 1e-8
        expected -= 0.05 * first / (1 - 0.95**step) / size
    assert weight.weight.item() == pytest.approx(expected, rel=1e-5)
    assert optimizer.param_groups[0]["betas"] == (0.95, 0.999)
