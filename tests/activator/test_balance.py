from __future__ import annotations

from random import Random

import pytest

from serving.activator.balance import PodSlots, choice_for


def pods(*taken: int, limit: int = 2) -> list[PodSlots]:
    made = []
    for index, count in enumerate(taken):
        pod = PodSlots(uid=f"p{index}", address=f"10.0.0.{index}:80", limit=limit)
        pod.taken, pod.open = count, True
        made.append(pod)
    return made


@pytest.mark.parametrize(
    ("concurrency", "taken", "chosen"),
    [
        pytest.param(1, (2, 0, 0), ["p1", "p1", "p2", "p2", None], id="first available fills one by one"),
        pytest.param(3, (0, 1), ["p0", "p0", "p1", None], id="three is still first available"),
        pytest.param(4, (0, 0, 1), ["p0", "p1", "p2", "p0", "p1", None], id="round robin"),
        pytest.param(0, (1, 0), ["p1"], id="of two pods the less loaded"),
        pytest.param(0, (2,), [None], id="the only pod is full"),
        pytest.param(0, (2, 2, 2), [None], id="all full"),
    ],
)
def test_choice(concurrency: int, taken: tuple[int, ...], chosen: list[str | None]) -> None:
    choose = choice_for(concurrency, random=Random(1))
    order = pods(*taken)
    seen: list[str | None] = []
    for _ in chosen:
        pod = choose(order)
        seen.append(pod.uid if pod else None)
        if pod is not None:
            pod.taken += 1
    assert seen == chosen


def test_random_of_two_spreads_and_avoids_the_loaded() -> None:
    choose = choice_for(0, random=Random(3))
    order = pods(0, 0, 0, 0, 60, limit=100)
    for _ in range(200):
        pod = choose(order)
        assert pod is not None
        pod.taken += 1
    assert max(pod.taken for pod in order[:4]) - min(pod.taken for pod in order[:4]) <= 8


def test_a_closed_pod_is_never_chosen() -> None:
    order = pods(0)
    order[0].open = False
    assert all(choice_for(cc, random=Random(1))(order) is None for cc in (0, 1, 10))
