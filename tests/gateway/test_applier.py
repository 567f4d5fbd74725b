"""Changes, acknowledgements and refusals, against a model of Envoy that refuses as a whole."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from serving.gateway.xds.applier import Applier

NAMES = st.sampled_from("abcdefgh")


class ModelEnvoy:
    """Refuses a change when, after it, two items share a version's first letter, or one is marked bad."""

    def __init__(self) -> None:
        self.has: dict[str, str] = {}
        self.answers = 0

    def apply(self, applier: Applier) -> None:
        change = applier.in_flight
        assert change is not None
        self.answers += 1
        after = {name: version for name, version in self.has.items() if name not in change.removals}
        after |= change.puts
        domains = [version[0] for version in after.values()]
        if any("bad" in version for version in after.values()) or len(set(domains)) < len(domains):
            applier.nack("no")
        else:
            self.has = after
            applier.ack()


def settle(applier: Applier, envoy: ModelEnvoy) -> None:
    for _ in range(1000):
        if applier.in_flight is None and applier.next(lambda _name: True) is None:
            return
        envoy.apply(applier)
    raise AssertionError("it never settles")


@settings(deadline=None)
@given(
    wishes=st.lists(
        st.tuples(NAMES, st.one_of(st.none(), st.tuples(NAMES, st.sampled_from(["", "-bad", "-2"])))), max_size=40
    ),
    pauses=st.lists(st.booleans(), min_size=40, max_size=40),
)
def test_everything_that_can_be_accepted_is(
    wishes: list[tuple[str, tuple[str, str] | None]], pauses: list[bool]
) -> None:
    """Whatever is wished, in whatever order and rhythm: it settles, nothing bad is in, the rest is."""
    applier, envoy = Applier(), ModelEnvoy()
    for (name, wish), pause in zip(wishes, pauses, strict=False):
        applier.want(name, None if wish is None else "".join(wish))
        if pause and applier.next(lambda _name: True) is not None:
            envoy.apply(applier)
    if applier.in_flight is not None:
        envoy.apply(applier)
    settle(applier, envoy)
    assert applier.settled
    assert applier.acked == envoy.has
    for name, version in applier.wanted.items():
        refused = name in applier.refused
        assert (envoy.has.get(name) == version) != refused
        if "bad" in version:
            assert refused
    assert not envoy.has.keys() - applier.wanted.keys(), "removals are never lost"


def test_a_group_that_became_moot_holds_nothing_back() -> None:
    applier, envoy = Applier(), ModelEnvoy()
    applier.want("a", "x")
    applier.want("b", "x")
    assert applier.next(lambda _name: True) is not None
    envoy.apply(applier)  # refused: both together; now they are tried one by one
    assert applier.next(lambda _name: True) is not None
    envoy.apply(applier)
    applier.want("b", None)
    applier.want("c", "y")
    settle(applier, envoy)
    assert applier.settled
    assert envoy.has == {"a": "x", "c": "y"}


def test_one_offender_among_many_is_found_in_logarithmic_steps() -> None:
    applier, envoy = Applier(), ModelEnvoy()
    for number in range(256):
        applier.want(f"n{number}", f"{chr(1000 + number)}" + ("-bad" if number == 77 else ""))
    settle(applier, envoy)
    assert set(applier.refused) == {"n77"}
    assert len(envoy.has) == 255
    assert envoy.answers <= 20


def test_a_host_that_moves_between_items_is_not_refused_for_the_company_it_kept() -> None:
    applier, envoy = Applier(), ModelEnvoy()
    applier.want("a", "x")
    settle(applier, envoy)
    applier.want("a", "y")
    applier.want("b", "x")
    applier.want("c", "z-bad")
    settle(applier, envoy)
    assert envoy.has == {"a": "y", "b": "x"}
    assert set(applier.refused) == {"c"}


def test_an_offender_is_not_tried_again_until_it_changes() -> None:
    applier, envoy = Applier(), ModelEnvoy()
    applier.want("a", "x-bad")
    settle(applier, envoy)
    answers = envoy.answers
    applier.want("b", "y")
    settle(applier, envoy)
    assert envoy.answers == answers + 1
    applier.want("a", "x")
    settle(applier, envoy)
    assert envoy.has == {"a": "x", "b": "y"}
    assert not applier.refused


def test_wishes_gather_while_a_change_is_under_way() -> None:
    applier = Applier()
    applier.want("a", "1")
    assert applier.next(lambda _name: True) is not None
    for version in ("2", "3", "4"):
        applier.want("a", version)
    assert applier.next(lambda _name: True) is None
    applier.ack()
    change = applier.next(lambda _name: True)
    assert change is not None
    assert change.puts == {"a": "4"}


def test_touch_while_under_way_is_not_lost() -> None:
    applier = Applier()
    applier.want("a", "1")
    applier.next(lambda _name: True)
    applier.touch("a")
    applier.ack()
    change = applier.next(lambda _name: True)
    assert change is not None
    assert change.puts == {"a": "1"}
    applier.ack()
    assert applier.settled


def test_what_envoy_still_has_is_not_sent_again() -> None:
    applier = Applier()
    applier.want("a", "1")
    applier.want("b", "2")
    applier.reset({"a": "1", "b": "0", "gone": "9"})
    change = applier.next(lambda _name: True)
    assert change is not None
    assert (change.puts, change.removals) == ({"b": "2"}, frozenset({"gone"}))
