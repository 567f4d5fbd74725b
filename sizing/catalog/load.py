"""Reads catalogue files and users' overlays. Errors name the file, the field and what is allowed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec
import yaml

from sizing.catalog.offers import Catalog, CatalogError
from sizing.catalog.schema import Provider


class Overlay(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A user's own file. `providers`: merge patches (RFC 7396) of catalogue files by provider, or whole new
    ones."""

    providers: dict[str, dict[str, Any]] = {}
    currency: str = ""
    exchange: dict[str, float] = {}


def load_catalog(overlays: Iterable[Path] = ()) -> Catalog:
    """The built-in catalogue with `overlays` laid over it in order. Raises CatalogError, OSError."""
    documents: dict[str, Any] = {}
    for entry in sorted(files("sizing.catalog").joinpath("data").iterdir(), key=lambda item: item.name):
        document = _parse(entry.read_text(encoding="utf-8"), entry.name)
        documents[document["provider"]] = document
    currency, exchange = "", dict[str, float]()
    for path in overlays:
        overlay = _convert(_parse(path.read_text(encoding="utf-8"), str(path)), Overlay, str(path))
        currency = overlay.currency or currency
        exchange |= overlay.exchange
        for name, patch in overlay.providers.items():
            documents[name] = merge(documents.get(name, {"provider": name}), patch)
    providers = {name: _convert(document, Provider, name) for name, document in documents.items()}
    for provider in providers.values():
        _check(provider)
    return Catalog(providers, currency, exchange)


def merge(document: Any, patch: Any) -> Any:
    """RFC 7396: mappings are merged, null removes, everything else replaces."""
    if not isinstance(patch, Mapping):
        return patch
    merged = dict(document) if isinstance(document, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge(merged.get(key), value)
    return merged


def _parse(text: str, where: str) -> dict[str, Any]:
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise CatalogError(f"{where}: not YAML: {error}") from error
    if not isinstance(document, dict):
        raise CatalogError(f"{where}: must be a mapping, is {type(document).__name__}")
    return document


def _convert(document: Any, kind: Any, where: str) -> Any:
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        raise CatalogError(f"{where}: {error}") from error


def _check(provider: Provider) -> None:
    """What a schema cannot say: names that refer to one another, and signs."""
    where = provider.provider
    for name, category in provider.categories.items():
        for lattice in category.lattices:
            if lattice not in provider.lattices:
                raise CatalogError(f"{where}: categories.{name}.lattices: unknown {lattice!r}")
        if min(category.price.vcpu, category.price.gib) < 0:
            raise CatalogError(f"{where}: categories.{name}.price: must not be negative")
    for name, mode in provider.purchase_modes.items():
        for lattice in mode.lattices:
            if lattice not in provider.lattices:
                raise CatalogError(f"{where}: purchase_modes.{name}.lattices: unknown {lattice!r}")
        if mode.factor is not None and not 0 <= mode.factor <= 10:
            raise CatalogError(f"{where}: purchase_modes.{name}.factor: {mode.factor} is not within 0..10")
    if provider.billing.granularity_seconds <= 0:
        raise CatalogError(f"{where}: billing.granularity_seconds: must be above 0")
