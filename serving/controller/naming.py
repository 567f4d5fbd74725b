"""Revision names chosen by users (BYO): when is a name taken?"""

from __future__ import annotations

from serving.api import keys
from serving.api.names import revision_name
from serving.api.v1 import Configuration, Revision


def template_name(configuration: Configuration) -> str:
    """The name that the template asks for, or an empty string."""
    metadata = configuration.spec.template.get("metadata") or {}
    return metadata.get("name") or ""


def wanted_name(configuration: Configuration) -> str:
    """Name of the Revision of the present generation."""
    meta = configuration.metadata
    return template_name(configuration) or revision_name(meta.name, meta.generation)


def name_conflict(configuration: Configuration, existing: Revision | None) -> bool:
    """Whether the Revision that has the wanted name is not the one that the Configuration describes.

    A Revision of an earlier generation with the same spec is reused: that is how a rollback by name works. One
    of a deleted Configuration of the same name is no conflict: it is about to be collected.
    """
    if existing is None or existing.metadata.name != wanted_name(configuration):
        return False
    if not existing.metadata.is_controlled_by(configuration.metadata.uid):
        owner = existing.metadata.controller_ref()
        return owner is None or (owner.kind, owner.name) != ("Configuration", configuration.metadata.name)
    generation = existing.metadata.labels.get(keys.CONFIGURATION_GENERATION)
    if generation == str(configuration.metadata.generation):
        return False
    return existing.spec != (configuration.spec.template.get("spec") or {})
