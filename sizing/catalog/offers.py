"""What can be bought: provider x category x purchase mode x architecture x shape, each with its rate. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from sizing.catalog.lattice import Shape, contains, least_memory, round_up, vcpus
from sizing.catalog.schema import (
    Billing,
    Category,
    Idle,
    Interruption,
    Lattice,
    Price,
    Provider,
    PurchaseMode,
    Start,
)

_SECONDS = {"second": 1.0, "hour": 3600.0}


class CatalogError(ValueError):
    """The catalogue does not offer what was asked for, or has no price for it. The message names both."""


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to run a pod on. Rates are per second in `currency`, all factors applied."""

    provider: str
    category: str
    mode: str
    arch: str
    shape: Shape
    currency: str
    rate: float
    idle_rate: float | None = None
    """While no request is in flight, where that is billed differently."""
    per_request: float = 0.0
    billing: Billing = Billing()
    start: Start
    idle: Idle = Idle()
    interruption: Interruption | None = None
    net_gbps: float | None = None
    max_concurrency: int | None = None

    @property
    def name(self) -> str:
        """E.g. `alibaba-eci/general/on-demand/1-2Gi`."""
        arch = "" if self.arch == "amd64" else f"/{self.arch}"
        return f"{self.provider}/{self.category}/{self.mode}{arch}/{self.shape}"


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What a user allows; an empty tuple allows all."""

    providers: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    modes: tuple[str, ...] = ()
    arch: tuple[str, ...] = ("amd64",)
    specs: tuple[Shape, ...] = ()
    min_vcpu: float = 0.0
    min_gib: float = 0.0


class Catalog(msgspec.Struct, frozen=True):
    """All providers. `exchange`: value of one unit of a currency in `currency`."""

    providers: Mapping[str, Provider]
    currency: str = ""
    exchange: Mapping[str, float] = {}

    def provider(self, name: str) -> Provider:
        try:
            return self.providers[name]
        except KeyError:
            known = ", ".join(sorted(self.providers))
            raise CatalogError(f"provider: unknown {name!r}; known are {known}") from None

    def offers(self, wish: Wish) -> list[Offer]:
        """Everything that the wish allows, for each size of CPU with the least memory that is enough (more memory
        of the same CPU only costs more), cheapest first. Raises CatalogError when a name is unknown, when a mode
        that was asked for has no price, or when nothing is left."""
        found: list[Offer] = []
        unpriced: list[str] = []
        for name in wish.providers or sorted(self.providers):
            provider = self.provider(name)
            for category_name, category in _chosen(provider.categories, wish.categories):
                for mode_name, mode in _chosen(provider.purchase_modes, wish.modes):
                    if category_name in mode.except_categories:
                        continue
                    if mode.factor is None:
                        unpriced.append(f"{name}/{category_name}/{mode_name}")
                        continue
                    for arch in category.arch:
                        if arch in mode.except_arch or (wish.arch and arch not in wish.arch):
                            continue
                        found += [
                            self._offer(provider, category_name, mode_name, arch, shape)
                            for shape in _shapes(provider, category, mode, wish)
                        ]
        if not found:
            raise CatalogError(_nothing(wish, unpriced))
        return sorted(found, key=lambda offer: (offer.rate, offer.name))

    def offer(self, *, provider: str, category: str, mode: str, shape: Shape, arch: str = "amd64") -> Offer:
        """Exactly this one. Raises CatalogError."""
        found = self.provider(provider)
        for kind, name, known in (
            ("category", category, found.categories),
            ("purchase mode", mode, found.purchase_modes),
        ):
            if name not in known:
                raise CatalogError(f"{kind}: {provider} has no {name!r}, but {', '.join(sorted(known))}")
        chosen, bought = found.categories[category], found.purchase_modes[mode]
        if bought.factor is None:
            raise CatalogError(
                f"purchase mode: no price is known for {provider}/{mode}; {_how_to_price(provider, mode)}"
            )
        if category in bought.except_categories or arch in bought.except_arch or arch not in chosen.arch:
            raise CatalogError(f"{provider} does not sell {category} as {mode} on {arch}")
        if not contains(_lattices(found, chosen, bought), shape):
            raise CatalogError(f"shape: {provider}/{category}/{mode} has no {shape}")
        return self._offer(found, category, mode, arch, shape)

    def round_up(self, *, provider: str, category: str, mode: str, vcpu: float, gib: float) -> Shape:
        """The shape that a pod asking for this is billed as, the provider's overhead included. Asking for nothing
        (0, 0) gives the provider's default. Raises CatalogError."""
        found = self.provider(provider)
        if vcpu == 0 and gib == 0 and found.default is not None:
            return Shape(*found.default)
        lattices = _lattices(found, found.categories[category], found.purchase_modes[mode])
        shape = round_up(lattices, vcpu + found.overhead.vcpu, gib + found.overhead.gib)
        if shape is None:
            raise CatalogError(
                f"shape: nothing of {provider}/{category}/{mode} is as large as {vcpu:g} vCPU, {gib:g} GiB"
            )
        return shape

    def _offer(self, provider: Provider, category: str, mode: str, arch: str, shape: Shape) -> Offer:
        chosen, bought = provider.categories[category], provider.purchase_modes[mode]
        factor = (bought.factor or 0.0) * self._exchange(provider.currency)
        single = shape.vcpu < chosen.one_request_below_vcpu
        return Offer(
            provider=provider.provider,
            category=category,
            mode=mode,
            arch=arch,
            shape=shape,
            currency=self.currency or provider.currency,
            rate=rate(chosen.price, shape) * factor,
            idle_rate=None if chosen.idle_price is None else rate(chosen.idle_price, shape) * factor,
            per_request=chosen.price.per_million_requests / 1e6 * factor,
            billing=provider.billing,
            start=provider.start,
            idle=provider.idle,
            interruption=bought.interruption,
            net_gbps=network_cap(provider.net_gbps, shape.vcpu),
            max_concurrency=1 if single else None,
        )

    def _exchange(self, currency: str) -> float:
        if not self.currency or currency == self.currency:
            return 1.0
        try:
            return self.exchange[currency]
        except KeyError:
            raise CatalogError(
                f"exchange: no rate from {currency} to {self.currency}; give it in an overlay, e.g. "
                f"exchange: {{{currency}: 1.0}}"
            ) from None


def rate(price: Price, shape: Shape) -> float:
    """Per second."""
    return (shape.vcpu * price.vcpu + shape.gib * price.gib) / _SECONDS[price.per]


def network_cap(caps: Mapping[float, float], vcpu: float) -> float | None:
    """Gbit/s of the largest entry that is not above `vcpu`."""
    below = [size for size in caps if size <= vcpu]
    return caps[max(below)] if below else None


def _chosen(known: Mapping[str, Any], wanted: Sequence[str]) -> Iterator[tuple[str, Any]]:
    for name, value in known.items():
        if not wanted or name in wanted:
            yield name, value


def _lattices(provider: Provider, category: Category, mode: PurchaseMode) -> list[Lattice]:
    return [provider.lattices[name] for name in mode.lattices or category.lattices]


def _shapes(provider: Provider, category: Category, mode: PurchaseMode, wish: Wish) -> Iterable[Shape]:
    lattices = _lattices(provider, category, mode)
    low, high = category.vcpu or (0.0, float("inf"))
    least = max(low, mode.min_vcpu, wish.min_vcpu + provider.overhead.vcpu)
    need = wish.min_gib + provider.overhead.gib
    if wish.specs:
        return [
            one for one in wish.specs if least <= one.vcpu <= high and one.gib >= need and contains(lattices, one)
        ]
    return [
        Shape(vcpu, gib)
        for vcpu in vcpus(lattices)
        if least <= vcpu <= high and (gib := least_memory(lattices, vcpu, need)) is not None
    ]


def _how_to_price(provider: str, mode: str) -> str:
    return (
        f"give its factor in an overlay: providers: {{{provider}: {{purchase_modes: {{{mode}: {{factor: …}}}}}}}}"
    )


def _nothing(wish: Wish, unpriced: Sequence[str]) -> str:
    asked = ", ".join(
        f"{name}={value}"
        for name, value in msgspec.structs.asdict(wish).items()
        if value not in ((), 0.0, ("amd64",))
    )
    message = f"the catalogue offers nothing for {asked or 'an empty wish'}"
    if unpriced:
        provider, _, mode = unpriced[0].split("/")
        message += f"; without a price are {', '.join(unpriced)}: {_how_to_price(provider, mode)}"
    return message
