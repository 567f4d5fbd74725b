from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.pool.rate import RESERVES, Bucket, Grants, Priority, Rate, Want, full, grant, refill, refused

ECI = Rate(burst=100, per_second=20)


def want(key: str, count: int, priority: Priority = Priority.BURST, since: float = 0.0) -> Want:
    return Want(key=key, priority=priority, count=count, since=since)


def test_a_burst_then_the_rate() -> None:
    """500 creations: 100 at once less the reserve of the class, then 20 a second."""
    bucket, now, left, sent = full(ECI, now=0.0), 0.0, 500, []
    while left:
        grants, bucket = grant(bucket, ECI, [want("a", left)], now)
        left -= grants.counts.get("a", 0)
        sent.append(grants.counts.get("a", 0))
        if grants.retry_at is not None:
            assert grants.retry_at > now
            now = grants.retry_at
    assert sent[0] == 90
    assert now == pytest.approx((500 - 90) / 20, abs=0.2)


def test_the_last_tokens_are_for_waking() -> None:
    bucket = Bucket(10.0, 0.0)
    grants, bucket = grant(
        bucket,
        ECI,
        [want("rollout", 5, Priority.ROLLOUT), want("burst", 5), want("wake", 1, Priority.ZERO_TO_ONE)],
        0,
    )
    assert grants.counts == {"wake": 1}
    assert bucket.tokens == 9
    assert grants.retry_at == pytest.approx((10 + 1 - 9) / 20)


def test_more_urgent_goes_first_then_first_come() -> None:
    wants = [
        want("late", 40, since=2.0),
        want("base", 40, Priority.BASE),
        want("early", 40, since=1.0),
        want("wake", 4, Priority.ZERO_TO_ONE, since=9.0),
    ]
    grants, _ = grant(full(ECI, now=0.0), ECI, wants, 0.0)
    assert grants.counts == {"wake": 4, "early": 40, "late": 40}


def test_nobody_waits() -> None:
    assert grant(full(ECI, now=0.0), ECI, [], 0.0)[0] == Grants(counts={}, retry_at=None)
    assert grant(full(ECI, now=0.0), ECI, [want("a", 3)], 0.0)[0].retry_at is None


def test_a_bucket_of_one_serves_every_class() -> None:
    rate = Rate(burst=1, per_second=1)
    for priority in Priority:
        assert grant(full(rate, now=0.0), rate, [want("a", 1, priority)], 0.0)[0].counts == {"a": 1}


def test_throttled_by_the_provider() -> None:
    bucket = refused(full(ECI, now=0.0), 5.0)
    assert refill(bucket, ECI, 5.5).tokens == 10
    assert refill(bucket, ECI, 4.0) == bucket, "a clock that went back gains nothing"


@pytest.mark.parametrize(("burst", "per_second"), [(0.5, 1), (1, 0), (1, -1)])
def test_rates_that_cannot_work(burst: float, per_second: float) -> None:
    with pytest.raises(ValueError, match="is not allowed"):
        Rate(burst=burst, per_second=per_second)


wants_strategy = st.lists(
    st.builds(
        Want,
        key=st.sampled_from(["a", "b", "c"]),
        priority=st.sampled_from(Priority),
        count=st.integers(0, 60),
        since=st.floats(0, 10),
    ),
    max_size=6,
)


@given(
    st.floats(1, 200),
    st.floats(0.1, 50),
    st.lists(st.tuples(st.floats(0, 5), wants_strategy), min_size=1, max_size=20),
)
def test_tokens_are_conserved(burst: float, per_second: float, turns: list[tuple[float, list[Want]]]) -> None:
    rate = Rate(burst=burst, per_second=per_second)
    bucket, now, granted = full(rate, now=0.0), 0.0, 0
    for gap, wants in turns:
        now += gap
        grants, bucket = grant(bucket, rate, wants, now)
        spent = sum(grants.counts.values())
        granted += spent
        assert 0 <= bucket.tokens <= burst
        assert granted <= burst + now * per_second + 1e-6, "never more than the account allows"
        for key, count in grants.counts.items():
            assert 0 < count <= sum(entry.count for entry in wants if entry.key == key)
        waiting = spent < sum(entry.count for entry in wants)
        assert (grants.retry_at is not None) == waiting
        if grants.retry_at is not None:
            assert grants.retry_at >= now


@given(st.floats(0, 100), wants_strategy)
def test_a_lower_class_never_takes_what_a_higher_one_lacks(tokens: float, wants: list[Want]) -> None:
    grants, bucket = grant(Bucket(tokens, 0.0), ECI, wants, 0.0)
    alone, _ = grant(
        Bucket(tokens, 0.0), ECI, [entry for entry in wants if entry.priority == Priority.ZERO_TO_ONE], 0.0
    )
    assert all(grants.counts[key] >= count for key, count in alone.counts.items())
    lowest = max((entry.priority for entry in wants if entry.count), default=Priority.ZERO_TO_ONE)
    if lowest == Priority.ROLLOUT and all(entry.priority == Priority.ROLLOUT for entry in wants):
        assert bucket.tokens >= min(tokens, RESERVES[Priority.ROLLOUT] * ECI.burst) - 1e-6


@given(wants_strategy, st.floats(1, 100))
def test_waiting_until_retry_always_helps(wants: list[Want], burst: float) -> None:
    rate = Rate(burst=burst, per_second=7.0)
    grants, bucket = grant(full(rate, now=0.0), rate, wants, 0.0)
    if grants.retry_at is not None:
        left: list[Want] = []
        used = dict(grants.counts)
        for entry in sorted(wants, key=lambda entry: (entry.priority, entry.since, entry.key)):
            taken = min(entry.count, used.get(entry.key, 0))
            used[entry.key] = used.get(entry.key, 0) - taken
            left.append(Want(key=entry.key, priority=entry.priority, count=entry.count - taken, since=entry.since))
        assert grant(bucket, rate, left, grants.retry_at)[0].counts
