from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.activator.timing import STAGES, PodTimes, Wake, budget, server_timing

NODE = {"seen": 10.03, "network": 10.05, "image": 10.06, "started": 10.07}


def test_a_cold_start_stage_by_stage() -> None:
    spent = budget(
        started=10.0,
        released=10.101,
        wake=Wake(poked_at=10.001, decided_at=10.005, created_at=10.02),
        pod=PodTimes(stages=NODE, failed_at=10.095, answered_at=10.1),
    )
    assert {stage: round(seconds * 1000) for stage, seconds in spent.items()} == {
        "queue": 1,
        "decide": 4,
        "create": 15,
        "schedule": 10,
        "boot": 30,
        "image": 10,
        "app": 25,
        "probe": 5,
        "release": 1,
    }
    assert tuple(spent) == STAGES


def test_a_pod_that_was_already_on_its_way() -> None:
    spent = budget(
        started=10.065, released=10.1, wake=Wake(poked_at=10.066), pod=PodTimes(stages=NODE, answered_at=10.1)
    )
    assert spent["schedule"] == spent["image"] == 0.0
    assert spent["boot"] == pytest.approx(0.004)
    assert sum(spent.values()) == pytest.approx(0.035)


def test_waiting_for_a_slot_is_release() -> None:
    spent = budget(started=20.0, released=20.5, wake=None, pod=PodTimes(stages=NODE, answered_at=10.1))
    assert spent["release"] == pytest.approx(0.5)


times = st.none() | st.floats(min_value=0, max_value=100)


@given(
    started=st.floats(min_value=0, max_value=100),
    wait=st.floats(min_value=0, max_value=100),
    marks=st.tuples(times, times, times, times),
    stages=st.dictionaries(st.sampled_from(sorted(NODE)), st.floats(min_value=0, max_value=100)),
)
def test_stages_always_add_up(
    started: float, wait: float, marks: tuple[float | None, ...], stages: dict[str, float]
) -> None:
    spent = budget(
        started=started,
        released=started + wait,
        wake=Wake(poked_at=started, decided_at=marks[0], created_at=marks[1]),
        pod=PodTimes(stages=stages, failed_at=marks[2], answered_at=marks[3]),
    )
    assert all(seconds >= 0 for seconds in spent.values())
    assert sum(spent.values()) == pytest.approx(wait, abs=1e-9)


def test_server_timing() -> None:
    assert server_timing({"queue": 0.0012, "app": 0.08}) == "queue;dur=1.2, app;dur=80.0, total;dur=81.2"
