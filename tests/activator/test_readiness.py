from __future__ import annotations

from typing import Any

import msgspec
import pytest

from serving.activator.readiness import PodView, Standing, observe, probed, refused, wants_probe
from serving.api.pod import ExecAction, Probe
from tests.activator.values import config, pod

EXEC = config(readiness=Probe(exec=ExecAction(command=("true",))))


def view(standing: Standing, **given: Any) -> PodView:
    return PodView(endpoint=pod(**given), standing=standing)


@pytest.mark.parametrize(
    ("before", "was", "now", "after"),
    [
        (Standing.UNKNOWN, False, True, Standing.ANSWERED),
        (Standing.UNKNOWN, False, False, Standing.UNKNOWN),
        (Standing.ANSWERED, False, False, Standing.ANSWERED),
        (Standing.ANSWERED, True, False, Standing.SUSPECT),
        (Standing.SUSPECT, False, True, Standing.ANSWERED),
        (Standing.SUSPECT, False, False, Standing.SUSPECT),
        (Standing.DISTRUSTED, True, True, Standing.DISTRUSTED),
        (Standing.DISTRUSTED, False, True, Standing.ANSWERED),
    ],
)
def test_what_kubernetes_says(before: Standing, was: bool, now: bool, after: Standing) -> None:
    known = view(before, kube_ready=was)
    assert observe(known, pod(kube_ready=now), config()).standing is after


def test_a_new_address_is_a_new_pod() -> None:
    known = view(Standing.ANSWERED)
    moved = observe(known, pod(address="10.0.0.2:8080"), config())
    assert moved.standing is Standing.UNKNOWN
    assert wants_probe(moved, config())


def test_ready_without_an_address_is_not_ready() -> None:
    assert not observe(None, pod(address="", kube_ready=True), config()).listed
    assert observe(None, pod(kube_ready=True), config()).open


def test_an_exec_probe_is_the_kubelets() -> None:
    fresh = observe(None, pod(), EXEC)
    assert not wants_probe(fresh, EXEC)
    ready = observe(fresh, pod(kube_ready=True), EXEC)
    assert ready.open
    assert observe(ready, pod(), EXEC).standing is Standing.UNKNOWN, "not ready counts at once"
    assert wants_probe(refused(ready), EXEC), "a refused connection can be tried again"


def test_suspect_stays_listed_until_its_probe_fails() -> None:
    suspect = view(Standing.SUSPECT)
    assert (suspect.listed, suspect.open, wants_probe(suspect, config())) == (True, False, True)
    assert not probed(suspect, answered=False).listed
    assert probed(suspect, answered=True).open


def test_distrusted_is_neither_listed_nor_released_to() -> None:
    distrusted = refused(view(Standing.ANSWERED, kube_ready=True))
    assert (distrusted.listed, distrusted.open) == (False, False)
    assert not probed(distrusted, answered=False).listed
    assert probed(distrusted, answered=True).open


@pytest.mark.parametrize(
    ("given", "listed", "opened", "probes"),
    [
        ({"draining": True}, True, False, False),
        ({"terminating": True}, False, False, False),
        ({"address": ""}, False, False, False),
        ({}, True, True, False),
    ],
)
def test_draining_and_terminating(given: dict[str, object], listed: bool, opened: bool, probes: bool) -> None:
    answered = view(Standing.ANSWERED, **given)
    assert (answered.listed, answered.open, wants_probe(answered, config())) == (listed, opened, probes)
    unknown = msgspec.structs.replace(answered, standing=Standing.UNKNOWN)
    assert wants_probe(unknown, config()) == opened
