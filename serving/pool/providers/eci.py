"""Alibaba Cloud ECI, through the virtual nodes of ACK and ACK Serverless.

The pod says everything in labels and annotations of its template; ECI reads them at creation only. The size goes
into `eci-use-specs`, at most five, tried in order when the first is sold out. Zones are vSwitches.
"""

from __future__ import annotations

from serving.api.pod import PodSpec
from serving.pool.providers.features import uses
from serving.pool.providers.model import Impossible, Instance, Mapped, ProviderSettings, Spot
from serving.pool.template import Placement

NAME = "alibaba-eci"
MOST_SPECS = 5
MOST_CONTAINERS = 20
MOST_VOLUMES = 20
SPOT_MIN_VCPU = 2
CATEGORIES = ("general", "economy")
_PREFIX = "k8s.aliyun.com/"
_TOLERATION = {"key": "virtual-kubelet.io/provider", "operator": "Exists"}


def place(instance: Instance, settings: ProviderSettings, spec: PodSpec) -> Mapped:
    problems = _problems(instance, settings, spec)
    if problems:
        return Impossible(provider=NAME, problems=tuple(problems))
    annotations: dict[str, str] = {}
    if instance.sizes:
        annotations["eci-use-specs"] = ",".join(str(size) for size in instance.sizes)
    if instance.category:
        annotations["eci-compute-category"] = instance.category
    if instance.spot is not None:
        annotations |= _spot(instance.spot)
    zones = instance.zones or tuple(settings.subnets)
    if settings.subnets:
        annotations["eci-vswitch"] = ",".join(settings.subnets[zone] for zone in zones)
        annotations["eci-schedule-strategy"] = "VSwitchOrdered" if instance.zones else "VSwitchRandom"
    if settings.security_groups:
        annotations["eci-security-group"] = ",".join(settings.security_groups)
    if instance.image_cache:
        annotations["eci-imc-id"] = instance.image_cache
    else:
        annotations["eci-auto-imc"] = "true"
    if instance.temporary_gib:
        annotations["eci-extra-ephemeral-storage"] = f"{instance.temporary_gib}Gi"
    # A pod that cannot be had is ours to replace elsewhere; the platform would keep trying for hours.
    annotations["eci-fail-strategy"] = "fail-fast"
    arm = {"kubernetes.io/arch": "arm64"} if instance.arch == "arm64" else {}
    return Placement(
        labels={"alibabacloud.com/eci": "true"},
        annotations={f"{_PREFIX}{key}": value for key, value in annotations.items()},
        node_selector={**settings.node_selector, **arm},
        tolerations=(_TOLERATION, *settings.tolerations),
    )


def _spot(spot: Spot) -> dict[str, str]:
    chosen = {"eci-spot-strategy": "SpotAsPriceGo"}
    if spot.price_limit is not None:
        chosen = {"eci-spot-strategy": "SpotWithPriceLimit", "eci-spot-price-limit": f"{spot.price_limit:.3f}"}
    if spot.fall_back:
        chosen["eci-spot-fallback"] = "true"
    if spot.protected_hours != 1:
        chosen["eci-spot-duration"] = str(spot.protected_hours)
    return chosen


def _problems(instance: Instance, settings: ProviderSettings, spec: PodSpec) -> list[str]:
    problems = []
    used = uses(spec)
    if len(instance.sizes) > MOST_SPECS:
        problems.append(f"sizes: {len(instance.sizes)} are given, at most {MOST_SPECS} are tried")
    if instance.category not in ("", *CATEGORIES):
        problems.append(f"category: {instance.category!r} is not of {', '.join(CATEGORIES)}")
    if instance.category == "economy" and instance.spot is not None:
        problems.append("category: economy is not sold as spot")
    if instance.category == "economy" and instance.arch == "arm64":
        problems.append("category: economy is amd64 only")
    if instance.spot is not None:
        small = [size for size in instance.sizes if size.vcpu < SPOT_MIN_VCPU]
        problems += [f"sizes: {size} is too small for spot, from {SPOT_MIN_VCPU} vCPU" for size in small]
        if not 0 <= instance.spot.protected_hours <= 6:
            problems.append(f"spot.protected_hours: {instance.spot.protected_hours} is not within 0..6")
    problems += [f"zones: {zone} has no vSwitch" for zone in instance.zones if zone not in settings.subnets]
    if used.containers > MOST_CONTAINERS:
        problems.append(f"containers: {used.containers}, at most {MOST_CONTAINERS} in an instance")
    if used.volumes > MOST_VOLUMES:
        problems.append(f"volumes: {used.volumes}, at most {MOST_VOLUMES} in an instance")
    problems += [f"{path}: there is no host to mount" for path in used.host_path]
    return problems
