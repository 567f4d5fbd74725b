"""Renewal of the webhook's certificate: what is served is always trusted, whatever order things happen in."""

from __future__ import annotations

import base64
import ssl

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from serving.webhook.certificates import (
    OVERLAP_SECONDS,
    RENEW_SECONDS,
    VALID_SECONDS,
    Certificates,
    decide,
    expiry,
    hosts_of,
    next_decision,
    read_secret,
    trusts,
)
from serving.webhook.configurations import SERVICE_NAMES

NOW = 1_800_000_000.0
DAY = 86400.0


def made(*hosts: str, now: float = NOW) -> Certificates:
    wanted = decide(None, hosts=hosts, bundles=(), now=now)
    assert wanted is not None
    return wanted


def stored(certificates: Certificates) -> dict[str, str]:
    return {key: value for key, value in certificates.secret_data().items() if value is not None}


def test_the_first_certificate_is_good_for_the_service_and_for_other_hosts() -> None:
    first = made("127.0.0.1", "hooks.example.com")
    assert hosts_of(first.serving) == {*SERVICE_NAMES, "127.0.0.1", "hooks.example.com"}
    assert trusts(first.bundle, first.serving)
    assert not trusts(made().bundle, first.serving)
    assert decide(first, hosts=("127.0.0.1",), bundles=[first.bundle] * 3, now=NOW) is None
    assert (
        next_decision(first, now=NOW)
        == expiry(first.serving) - RENEW_SECONDS
        == NOW + VALID_SECONDS - RENEW_SECONDS
    )
    ssl.create_default_context(cadata=b"".join(first.authorities).decode())


def test_what_is_stored_is_read_back() -> None:
    first = made()
    late = NOW + VALID_SECONDS - RENEW_SECONDS
    announced = decide(first, hosts=(), bundles=[first.bundle], now=late)
    assert announced is not None
    assert announced.successor is not None
    for one in (first, announced):
        assert read_secret(stored(one)) == one
    # The patch that promotes takes the successor's keys away.
    assert first.secret_data()["next.crt"] is None


@pytest.mark.parametrize("key", ["tls.crt", "tls.key", "ca.crt"])
@pytest.mark.parametrize("value", [None, "", "%", base64.b64encode(b"no PEM").decode(), "foreign"])
def test_what_cannot_be_used_is_made_anew(key: str, value: str | None) -> None:
    data = stored(made())
    if value is None:
        del data[key]
    else:
        data[key] = stored(made())[key] if value == "foreign" else value
    assert read_secret(data) is None
    assert read_secret({}) is None
    assert read_secret(None) is None


def test_a_successor_is_announced_before_it_is_served() -> None:
    first = made()
    late = NOW + VALID_SECONDS - RENEW_SECONDS
    assert decide(first, hosts=(), bundles=[first.bundle], now=late - 1) is None
    announced = decide(first, hosts=(), bundles=[first.bundle], now=late)
    assert announced is not None
    assert announced.successor is not None
    assert announced.serving == first.serving
    assert trusts(announced.bundle, first.serving)
    assert trusts(announced.bundle, announced.successor)
    due = late + OVERLAP_SECONDS
    assert next_decision(announced, now=late) == due
    bundles = [announced.bundle, announced.bundle, first.bundle]
    assert decide(announced, hosts=(), bundles=bundles, now=due) is None, "one configuration does not trust it yet"
    assert decide(announced, hosts=(), bundles=[announced.bundle] * 3, now=due - 1) is None
    promoted = decide(announced, hosts=(), bundles=[announced.bundle] * 3, now=due)
    assert promoted is not None
    assert promoted.serving == announced.successor
    assert promoted.successor is None
    assert trusts(promoted.bundle, first.serving), "other replicas may serve it a little longer"


def test_an_authority_leaves_the_bundle_when_it_has_expired() -> None:
    first = made()
    late = NOW + VALID_SECONDS + DAY
    announced = decide(first, hosts=(), bundles=[first.bundle], now=late)
    assert announced is not None
    assert len(announced.authorities) == 1
    promoted = decide(announced, hosts=(), bundles=[announced.bundle], now=late + 1)
    assert promoted is not None, "nothing is gained by waiting when nobody can use the old one"
    assert promoted.serving == announced.successor


def test_a_new_host_is_announced_like_a_renewal_but_not_made_to_wait() -> None:
    first = made("10.0.0.1")
    announced = decide(first, hosts=("10.0.0.2",), bundles=[first.bundle], now=NOW)
    assert announced is not None
    assert announced.successor is not None
    assert hosts_of(announced.successor) >= {"10.0.0.1", "10.0.0.2"}
    assert decide(announced, hosts=("10.0.0.2",), bundles=[first.bundle], now=NOW) is None
    promoted = decide(announced, hosts=("10.0.0.2",), bundles=[announced.bundle], now=NOW)
    assert promoted is not None
    for host in ("10.0.0.1", "10.0.0.2"):
        assert decide(promoted, hosts=(host,), bundles=[promoted.bundle], now=NOW) is None


class Renewal(RuleBasedStateMachine):
    """Two replicas that see the Secret late, configurations that are injected late, and years that pass."""

    @initialize()
    def install(self) -> None:
        self.now = NOW
        self.secret = made()
        self.seen = [self.secret, self.secret]
        self.injected = [self.secret.bundle] * 3
        self.trusted_since = NOW

    @rule(replica=st.integers(0, 1))
    def act(self, replica: int) -> None:
        wanted = decide(self.seen[replica], hosts=(), bundles=self.injected, now=self.now)
        if wanted is not None and self.seen[replica] == self.secret:
            self.secret = wanted  # a write on an older version is refused

    @rule(replica=st.integers(0, 1))
    def see(self, replica: int) -> None:
        self.seen[replica] = self.secret

    @rule(replica=st.integers(0, 1), which=st.integers(0, 2))
    def inject(self, replica: int, which: int) -> None:
        # A replica that was away writes an old bundle only until it sees the Secret; it then writes the new one.
        if self.seen[replica] == self.secret:
            self.injected[which] = self.secret.bundle

    @rule(days=st.sampled_from([0.001, 0.01, 1, 10, 20]))
    def wait(self, days: float) -> None:
        self.now += days * DAY
        # Nobody is away for longer than a renewal leaves time: that is what the invariant assumes.
        for replica in (0, 1):
            self.see(replica)
            self.act(replica)
            self.see(0)
            self.see(1)
            for which in range(3):
                self.inject(replica, which)

    @invariant()
    def whatever_is_served_is_trusted_and_valid(self) -> None:
        for seen in self.seen:
            assert all(trusts(bundle, seen.serving) for bundle in self.injected)
            assert self.now < expiry(seen.serving)


TestRenewal = Renewal.TestCase
TestRenewal.settings = settings(max_examples=25, stateful_step_count=40, deadline=None)
