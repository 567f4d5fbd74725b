"""Wishes to Pods, against files (`UPDATE_GOLDEN=1` writes them anew), and what a provider cannot do."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from serving.api.pod import PodSpec
from serving.pool.providers import place_on
from serving.pool.providers.model import Impossible, Instance, ProviderSettings, Spot
from serving.pool.template import Placement, pod_for
from sizing.catalog.lattice import Shape
from tests.pool.support import revision

GOLDEN = Path(__file__).parent / "golden"
ECI = ProviderSettings(
    kind="alibaba-eci",
    subnets={"cn-hangzhou-h": "vsw-1", "cn-hangzhou-i": "vsw-2"},
    security_groups=("sg-1",),
)
FARGATE = ProviderSettings(kind="aws-fargate", fargate_profile="serving")
ACI = ProviderSettings(kind="azure-aci")
ACI_V2 = ProviderSettings(kind="azure-aci-v2", subnets={"1": "pods", "2": "pods"})
AUTOPILOT = ProviderSettings(kind="gke-autopilot", compute_class="Scale-Out")
KATA = ProviderSettings(kind="runtime-class", runtime_class="kata-clh", node_selector={"pool": "kata"})
NODES = ProviderSettings(kind="nodes", tolerations=({"key": "serving", "operator": "Exists"},))

CASES = {
    "eci": (ECI, Instance()),
    "eci-sizes": (ECI, Instance(sizes=(Shape(1, 2), Shape(2, 4)), category="economy", zones=("cn-hangzhou-i",))),
    "eci-spot": (
        ECI,
        Instance(
            sizes=(Shape(2, 4),), spot=Spot(price_limit=0.5, fall_back=True, protected_hours=0), temporary_gib=50
        ),
    ),
    "eci-arm64-cached": (ECI, Instance(arch="arm64", image_cache="imc-1", spot=Spot())),
    "fargate": (FARGATE, Instance(sizes=(Shape(0.5, 2),))),
    "aci": (ACI, Instance(sizes=(Shape(1, 2),))),
    "aci-v2": (ACI_V2, Instance(sizes=(Shape(2, 4),), zones=("2",))),
    "autopilot": (AUTOPILOT, Instance(sizes=(Shape(0.25, 0.5),))),
    "autopilot-spot": (AUTOPILOT, Instance(spot=Spot(), arch="arm64", zones=("us-central1-a",))),
    "kata": (KATA, Instance(sizes=(Shape(0.5, 1),))),
    "nodes-spot": (NODES, Instance(spot=Spot())),
}


def spec(**fields: Any) -> PodSpec:
    container = {"name": "app", "image": "i", **fields.pop("container", {})}
    return msgspec.convert({"containers": [container], **fields}, PodSpec)


@pytest.mark.parametrize("name", CASES)
def test_pod(name: str) -> None:
    settings, instance = CASES[name]
    made = revision()
    placement = place_on(instance, settings, msgspec.convert(made.spec, PodSpec))
    assert isinstance(placement, Placement), placement
    text = yaml.safe_dump(pod_for(made, suffix="bcdfg", placement=placement), sort_keys=True)
    golden = GOLDEN / f"{name}.yaml"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(text)
    assert golden.read_text() == text, "run with UPDATE_GOLDEN=1 and look at the difference"


GPU = {"resources": {"limits": {"nvidia.com/gpu": 1}}}
PRIVILEGED = {"securityContext": {"privileged": True}}
HOST = [{"name": "v", "hostPath": {"path": "/"}}]


@pytest.mark.parametrize(
    ("settings", "instance", "pod", "problem"),
    [
        (ECI, Instance(category="economy", spot=Spot()), spec(), "category: economy is not sold as spot"),
        (ECI, Instance(category="economy", arch="arm64"), spec(), "category: economy is amd64 only"),
        (ECI, Instance(category="gold"), spec(), "category: 'gold' is not of general, economy"),
        (
            ECI,
            Instance(sizes=(Shape(1, 2),), spot=Spot()),
            spec(),
            "sizes: 1-2Gi is too small for spot, from 2 vCPU",
        ),
        (ECI, Instance(sizes=(Shape(2, 4),) * 6), spec(), "sizes: 6 are given, at most 5 are tried"),
        (ECI, Instance(zones=("x",)), spec(), "zones: x has no vSwitch"),
        (ECI, Instance(spot=Spot(protected_hours=7)), spec(), "spot.protected_hours: 7 is not within 0..6"),
        (ECI, Instance(), spec(volumes=HOST), "volumes[0].hostPath: there is no host to mount"),
        (FARGATE, Instance(spot=Spot()), spec(), "spot: EKS Fargate sells on demand only"),
        (FARGATE, Instance(arch="arm64"), spec(), "arch: arm64 is not sold on EKS Fargate, only amd64"),
        (
            FARGATE,
            Instance(),
            spec(container=GPU),
            "containers[0].resources.limits[nvidia.com/gpu]: Fargate has no",
        ),
        (
            FARGATE,
            Instance(),
            spec(container=PRIVILEGED),
            "containers[0].securityContext.privileged: Fargate runs no",
        ),
        (ProviderSettings(kind="aws-fargate"), Instance(), spec(), "fargate_profile: no profile is configured"),
        (ACI, Instance(spot=Spot()), spec(), "spot: spot groups cannot join a virtual network"),
        (ACI, Instance(sizes=(Shape(8, 16),)), spec(), "sizes: 8-16Gi is above 4 vCPU and 16 GiB"),
        (ACI, Instance(zones=("1",)), spec(), "zones: the virtual node add-on has none"),
        (ACI_V2, Instance(zones=("3",)), spec(), "zones: 3 has no subnet"),
        (
            AUTOPILOT,
            Instance(sizes=(Shape(1, 8),)),
            spec(),
            "sizes: 1-8Gi has 8 GiB for each vCPU, possible are 1 to 6.5",
        ),
        (AUTOPILOT, Instance(sizes=(Shape(0.1, 0.5),)), spec(), "sizes: 0.1-0.5Gi is below 0.25 vCPU and 0.5 GiB"),
        (AUTOPILOT, Instance(zones=("a", "b")), spec(), "zones: one, or none for any"),
        (KATA, Instance(), spec(volumes=HOST), "volumes[0].hostPath: a sandbox mounts nothing of its host"),
        (ProviderSettings(kind="runtime-class"), Instance(), spec(), "runtime_class: none is configured"),
        (NODES, Instance(category="economy"), spec(), "category: 'economy' is given, nodes have none"),
    ],
)
def test_what_a_provider_cannot_do(
    settings: ProviderSettings, instance: Instance, pod: PodSpec, problem: str
) -> None:
    found = place_on(instance, settings, pod)
    assert isinstance(found, Impossible)
    assert any(one.startswith(problem) for one in found.problems), found.problems
    assert found.message.startswith(f"{found.provider} cannot run this revision: ")


def test_sidecars_take_their_part_of_the_instance() -> None:
    two = revision(
        {
            "containers": [
                {"name": "app", "image": "a", "ports": [{"containerPort": 8080}], "resources": {}},
                {"name": "side", "image": "b", "resources": {"requests": {"cpu": "250m", "memory": "512Mi"}}},
            ]
        }
    )
    placement = Placement(cpu_millis=1000, memory_mib=2048)
    serving = pod_for(two, suffix="b", placement=placement)["spec"]["containers"][0]
    assert serving["resources"] == {
        "requests": {"cpu": "750m", "memory": "1536Mi"},
        "limits": {"cpu": "750m", "memory": "1536Mi"},
    }
    with pytest.raises(ValueError, match="cpu: the other containers take all of 250m"):
        pod_for(two, suffix="b", placement=Placement(cpu_millis=250))
