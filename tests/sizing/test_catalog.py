"""Files, overlays and what is said about what cannot be bought."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sizing.catalog.lattice import Shape, round_up, shapes
from sizing.catalog.load import load_catalog, merge
from sizing.catalog.offers import CatalogError, Wish
from sizing.catalog.schema import Lattice, Ratio, Steps

CATALOG = load_catalog()


def overlay(tmp_path: Path, document: object) -> Path:
    path = tmp_path / "prices.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def test_every_price_says_where_it_is_from() -> None:
    for provider in CATALOG.providers.values():
        for category in provider.categories.values():
            assert category.price.source
            assert category.price.date


@pytest.mark.parametrize(
    ("provider", "category", "mode", "an_hour"),
    [
        ("aws-fargate-eks", "standard", "on-demand", 0.0987),
        ("azure-aci", "standard", "on-demand", 0.0988),
        ("gke-autopilot", "general-purpose", "on-demand", 0.1087),
        ("gke-autopilot", "general-purpose", "spot", 0.0325),
        ("google-cloud-run", "request", "on-demand", 0.2088),
        ("google-cloud-run", "instance", "on-demand", 0.1584),
        ("alibaba-eci", "general", "on-demand", 0.4411),
        ("alibaba-eci", "economy", "on-demand", 0.2827),
    ],
)
def test_two_vcpus_and_four_gib(provider: str, category: str, mode: str, an_hour: float) -> None:
    offer = CATALOG.offer(provider=provider, category=category, mode=mode, shape=Shape(2, 4))
    assert offer.rate * 3600 == pytest.approx(an_hour, abs=6e-5)


@pytest.mark.parametrize(
    ("asked", "shape"), [((0, 0), Shape(0.25, 0.5)), ((0.25, 0.5), Shape(0.25, 1)), ((3, 8), Shape(4, 9))]
)
def test_fargate_adds_a_quarter_gib(asked: tuple[float, float], shape: Shape) -> None:
    found = CATALOG.round_up(
        provider="aws-fargate-eks", category="standard", mode="on-demand", vcpu=asked[0], gib=asked[1]
    )
    assert found == shape


def test_the_network_of_a_small_shape_is_slow() -> None:
    by_size = {offer.shape.vcpu: offer.net_gbps for offer in CATALOG.offers(Wish(providers=("alibaba-eci",)))}
    assert (by_size[0.25], by_size[1], by_size[2], by_size[6]) == (0.08, 0.1, 1, 1.5)


def test_less_than_a_vcpu_of_cloud_run_takes_one_request() -> None:
    found = CATALOG.offers(Wish(providers=("google-cloud-run",), categories=("request",)))
    assert {offer.max_concurrency for offer in found if offer.shape.vcpu < 1} == {1}
    assert {offer.max_concurrency for offer in found if offer.shape.vcpu >= 1} == {None}


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        (Wish(providers=("nowhere",)), "provider: unknown 'nowhere'; known are alibaba-eci, aws"),
        (
            Wish(providers=("alibaba-eci",), modes=("spot",)),
            r"without a price are alibaba-eci/general/spot: give its factor in an overlay",
        ),
        (Wish(providers=("local",), min_vcpu=99), "offers nothing for providers=\\('local',\\), min_vcpu=99"),
    ],
)
def test_nothing_to_buy(wish: Wish, message: str) -> None:
    with pytest.raises(CatalogError, match=message):
        CATALOG.offers(wish)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ({"category": "gold"}, "category: alibaba-eci has no 'gold', but economy, general"),
        ({"mode": "free"}, "purchase mode: alibaba-eci has no 'free', but on-demand, savings-plan, spot"),
        ({"mode": "spot"}, "no price is known for alibaba-eci/spot"),
        ({"arch": "arm64"}, "does not sell general as on-demand on arm64"),
        ({"shape": Shape(2, 3)}, "has no 2-3Gi"),
    ],
)
def test_an_offer_that_does_not_exist(what: dict[str, object], message: str) -> None:
    asked: dict[str, object] = {
        "provider": "alibaba-eci", "category": "general", "mode": "on-demand", "shape": Shape(2, 4), **what
    }  # fmt: skip
    with pytest.raises(CatalogError, match=message):
        CATALOG.offer(**asked)  # type: ignore[arg-type]


def test_economy_is_never_spot(tmp_path: Path) -> None:
    priced = load_catalog(
        [overlay(tmp_path, {"providers": {"alibaba-eci": {"purchase_modes": {"spot": {"factor": 0.3}}}}})]
    )
    found = priced.offers(Wish(providers=("alibaba-eci",), modes=("spot",)))
    assert {offer.category for offer in found} == {"general"}
    assert min(offer.shape.vcpu for offer in found) == 2
    assert found[0].rate == pytest.approx(0.3 * CATALOG.offer(
        provider="alibaba-eci", category="general", mode="on-demand", shape=found[0].shape).rate)  # fmt: skip
    assert found[0].interruption is not None
    with pytest.raises(CatalogError, match="does not sell economy as spot"):
        priced.offer(provider="alibaba-eci", category="economy", mode="spot", shape=Shape(2, 4))


def test_one_currency(tmp_path: Path) -> None:
    mixed = load_catalog([overlay(tmp_path, {"currency": "CNY", "exchange": {"USD": 7.0}})])
    offer = mixed.offer(provider="aws-fargate-eks", category="standard", mode="on-demand", shape=Shape(2, 4))
    assert offer.currency == "CNY"
    assert offer.rate * 3600 == pytest.approx(0.0987 * 7, abs=1e-3)
    missing = load_catalog([overlay(tmp_path, {"currency": "EUR"})])
    with pytest.raises(CatalogError, match="exchange: no rate from CNY to EUR; give it in an overlay"):
        missing.offers(Wish(providers=("alibaba-eci",)))


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"provider": {}}, r"prices.yaml: Object contains unknown field `provider`"),
        ([1], "must be a mapping, is list"),
        ({"providers": {"local": {"billing": {"granularity_seconds": 0}}}}, "must be above 0"),
        (
            {"providers": {"local": {"purchase_modes": {"spot": {"factor": -1}}}}},
            r"spot.factor: -1.* is not within 0..10",
        ),
        ({"providers": {"local": {"categories": {"machine": {"lattices": ["x"]}}}}}, "unknown 'x'"),
        ({"providers": {"mine": {"title": "Mine"}}}, "mine: Object missing required field"),
    ],
)
def test_a_bad_overlay_names_file_and_field(tmp_path: Path, document: object, message: str) -> None:
    with pytest.raises(CatalogError, match=message):
        load_catalog([overlay(tmp_path, document)])


LATTICE = Lattice(
    shapes={0.5: [1.0, 2.0], 2.0: Steps(least=4, most=8, step=2)},
    rule=Ratio(
        vcpu=Steps(least=1, most=4, step=0.25), gib=Steps(least=0.5, most=12, step=0.5), gib_per_vcpu=(1.0, 3.0)
    ),
)


@given(vcpu=st.floats(0.01, 5), gib=st.floats(0.01, 13))
def test_rounding_up_is_idempotent_and_enough(vcpu: float, gib: float) -> None:
    shape = round_up([LATTICE], vcpu, gib)
    if shape is None:
        assert not any(one.vcpu >= vcpu and one.gib >= gib for one in shapes([LATTICE]))
        return
    assert shape.vcpu >= vcpu - 1e-9
    assert shape.gib >= gib - 1e-9
    assert shape in shapes([LATTICE])
    assert round_up([LATTICE], shape.vcpu, shape.gib) == shape


def test_merging() -> None:
    assert merge({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": None, "e": 4}}) == {"a": {"c": 2, "e": 4}, "d": 3}
