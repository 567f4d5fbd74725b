from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.activator.probe_schedule import (
    IDLE_MAX_DELAY_SECONDS,
    MAX_DELAY_SECONDS,
    Kind,
    ProbeTarget,
    attempt_timeout,
    next_delay,
    probe_target,
    split_address,
)
from serving.api.pod import ExecAction, GrpcAction, HttpGetAction, HttpHeader, Probe, TcpSocketAction
from tests.activator.values import config, pod


@pytest.mark.parametrize(
    ("address", "parts"), [("10.0.0.1:80", ("10.0.0.1", 80)), ("[fd00::1]:8080", ("fd00::1", 8080))]
)
def test_split_address(address: str, parts: tuple[str, int]) -> None:
    assert split_address(address) == parts


@pytest.mark.parametrize("address", ["", "10.0.0.1", ":80", "10.0.0.1:http"])
def test_not_an_address(address: str) -> None:
    with pytest.raises(ValueError, match="want ip:port"):
        split_address(address)


def target(**given: object) -> ProbeTarget:
    values: dict[str, object] = {"kind": Kind.TCP, "host": "10.0.0.1", "port": 31000}
    return ProbeTarget(**(values | given))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("probe", "expected"),
    [
        pytest.param(None, target(), id="default is TCP on the serving port"),
        pytest.param(Probe(tcp_socket=TcpSocketAction(port=8080)), target(), id="own port follows the pod"),
        pytest.param(Probe(tcp_socket=TcpSocketAction(port=9000)), target(port=9000), id="another port"),
        pytest.param(Probe(tcp_socket=TcpSocketAction(port="http1")), target(), id="named port"),
        pytest.param(
            Probe(
                http_get=HttpGetAction(path="ready", host="example.com", http_headers=(HttpHeader(name="A"),)),
                timeout_seconds=3,
                success_threshold=2,
            ),
            target(
                kind=Kind.HTTP,
                path="/ready",
                headers=(("A", ""), ("Host", "example.com")),
                timeout_seconds=3.0,
                success_threshold=2,
            ),
            id="http: host is only a header",
        ),
        pytest.param(
            Probe(http_get=HttpGetAction(scheme="HTTPS", port="9443")),
            target(kind=Kind.HTTP, tls=True, port=9443),
            id="https",
        ),
        pytest.param(Probe(grpc=GrpcAction(service="db")), target(kind=Kind.GRPC, service="db"), id="grpc"),
        pytest.param(Probe(exec=ExecAction(command=("true",))), target(), id="exec becomes a connect"),
    ],
)
def test_target(probe: Probe | None, expected: ProbeTarget) -> None:
    assert probe_target(config(readiness=probe), pod(address="10.0.0.1:31000")) == expected


def test_delays_from_2_to_50_ms_while_somebody_waits() -> None:
    delays = [next_delay(attempt=n, elapsed=1.0, waited_for=True, probing=1) for n in range(1, 40)]
    assert delays[0] == pytest.approx(0.002)
    assert delays[-1] == MAX_DELAY_SECONDS
    assert delays == sorted(delays)


@given(
    attempt=st.integers(min_value=1, max_value=10**6),
    elapsed=st.floats(min_value=0, max_value=1e6),
    waited_for=st.booleans(),
    probing=st.integers(min_value=1, max_value=10_000),
)
def test_delays_are_bounded(attempt: int, elapsed: float, waited_for: bool, probing: int) -> None:
    delay = next_delay(attempt=attempt, elapsed=elapsed, waited_for=waited_for, probing=probing)
    assert 0.002 <= delay <= max(IDLE_MAX_DELAY_SECONDS, probing / 1000)
    assert probing / delay <= 1000.1 or probing == 1
    assert delay <= next_delay(attempt=attempt, elapsed=elapsed, waited_for=False, probing=probing)


def test_a_crash_loop_nobody_waits_for_is_probed_rarely() -> None:
    assert next_delay(attempt=500, elapsed=100.0, waited_for=False, probing=1) == IDLE_MAX_DELAY_SECONDS


def test_timeouts_grow_up_to_the_probes_own() -> None:
    probe = target(timeout_seconds=0.5)
    assert [attempt_timeout(probe, unanswered=n) for n in range(4)] == pytest.approx([0.1, 0.2, 0.4, 0.5])
