"""Revision names chosen by users (BYO): when is a name taken?"""

from __future__ import annotations

from serving.api import keys
from serving.api.v1 import Configuration, Revision


def template_name(configuration: Configuration) -> str:
    """The name that the template asks for, or an empty string."""
    metadata = configuration.spec.template.get("metadata") or {}
    return metadata.get("name") or ""


def name_conflict(configuration: Configuration, existing: Revision | None) -> bool:
    """Whether the Revision that has the template's name is not the one that the Configuration describes.

    A Revision of an earlier generation with the same spec is reused: that is how a rollback by name works.
    """
    name = template_name(configuration)
    if not name or existing is None or existing.metadata.name != name:
        return False
    if not existing.metadata.is_controlled_by(configuration.metadata.uid):
        return True
    generation = existing.metadata.labels.get(keys.CONFIGURATION_GENERATION)
    if generation == str(configuration.metadata.generation):
        return False
    return existing.spec != (configuration.spec.template.get("spec") or {})
