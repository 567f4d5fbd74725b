"""Configuration → Revision: one immutable Revision per generation of the template."""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from serving.api import keys
from serving.api.conditions import Conditions, ConditionSet
from serving.api.meta import JsonObject, find_condition
from serving.api.resources import CONFIGURATIONS, REVISIONS
from serving.api.v1 import Configuration, ConfigurationStatus, Revision, Route
from serving.controller.naming import name_conflict, template_name, wanted_name
from serving.controller.writes import Create, Patch, Write, controller_reference, status_patch

CONDITIONS = ConditionSet()


def reconcile_configuration(
    configuration: Configuration,
    *,
    revisions: Collection[Revision],
    named_revision: Revision | None,
    now: str,
) -> list[Write]:
    """Writes that give the current generation its Revision, and the Configuration's status.

    `revisions` are those labelled with this Configuration; `named_revision` the one, whoever owns it, that has
    the name which the present generation wants.
    """
    conditions = CONDITIONS.initialise(configuration.status.conditions, now=now)
    status = msgspec.structs.replace(configuration.status, observed_generation=configuration.metadata.generation)
    if name_conflict(configuration, named_revision):
        taken = f'revisions.serving.knative.dev "{wanted_name(configuration)}" already exists'
        return _failed_to_create(configuration, status, conditions, taken, now)
    owned = [revision for revision in revisions if revision.metadata.is_controlled_by(configuration.metadata.uid)]
    latest = _current(configuration, owned)
    if latest is None:
        body = desired_revision(configuration, now=now)
        status = msgspec.structs.replace(status, latest_created_revision_name=body["metadata"]["name"])
        conditions = CONDITIONS.mark_unknown(conditions, "Ready", now=now)
        return [
            Create(resource=REVISIONS, body=body),
            *_status(configuration, status, conditions),
        ]
    status = msgspec.structs.replace(status, latest_created_revision_name=latest.metadata.name)
    status = msgspec.structs.replace(
        status, latest_ready_revision_name=_latest_ready(configuration, owned, latest)
    )
    return _status(configuration, status, _ready(conditions, status, latest, now))


def reconcile_routes_annotation(configuration: Configuration, *, routes: Collection[Route]) -> list[Write]:
    """The annotation that names every Route which uses the Configuration or one of its Revisions.

    The Route of the Service that owns it counts also before it exists: the Service has put it there.
    """
    meta = configuration.metadata
    users = {route.metadata.name for route in routes if route.metadata.deletion_timestamp is None}
    owner = meta.controller_ref()
    if owner is not None and owner.kind == "Service":
        users.add(owner.name)
    joined = ",".join(sorted(users))
    if meta.annotations.get(keys.ROUTES, "") == joined:
        return []
    return [
        Patch(
            resource=CONFIGURATIONS,
            namespace=meta.namespace,
            name=meta.name,
            patch={"metadata": {"annotations": {keys.ROUTES: joined or None}}},
            resource_version=meta.resource_version,
        )
    ]


def creation_failed(configuration: Configuration, *, message: str, now: str) -> list[Write]:
    """Status after the API server refused the Revision."""
    conditions = CONDITIONS.initialise(configuration.status.conditions, now=now)
    status = msgspec.structs.replace(configuration.status, observed_generation=configuration.metadata.generation)
    return _failed_to_create(configuration, status, conditions, message, now)


def desired_revision(configuration: Configuration, *, now: str) -> JsonObject:
    meta = configuration.metadata
    template = configuration.spec.template
    template_meta = template.get("metadata") or {}
    routes = meta.annotations.get(keys.ROUTES, "")
    labels = dict(template_meta.get("labels") or {})
    labels[keys.CONFIGURATION] = meta.name
    labels[keys.CONFIGURATION_UID] = meta.uid
    labels[keys.CONFIGURATION_GENERATION] = str(meta.generation)
    labels[keys.ROUTING_STATE] = "active" if routes else "pending"
    for key in (keys.SERVICE, keys.SERVICE_UID):
        labels[key] = meta.labels.get(key, "")
    annotations = dict(template_meta.get("annotations") or {})
    annotations[keys.ROUTING_STATE_MODIFIED] = now
    if routes:
        annotations[keys.ROUTES] = routes
    if creator := meta.annotations.get(keys.LAST_MODIFIER) or meta.annotations.get(keys.CREATOR):
        annotations[keys.CREATOR] = creator
    return {
        "apiVersion": REVISIONS.api_version,
        "kind": "Revision",
        "metadata": {
            "name": wanted_name(configuration),
            "namespace": meta.namespace,
            "labels": labels,
            "annotations": annotations,
            "ownerReferences": [
                controller_reference(api_version=CONFIGURATIONS.api_version, kind="Configuration", meta=meta)
            ],
        },
        "spec": template.get("spec") or {},
    }


def generation_of(revision: Revision) -> int:
    """Generation of the Configuration that made this Revision; 0 when the label is missing or damaged."""
    label = revision.metadata.labels.get(keys.CONFIGURATION_GENERATION, "")
    return int(label) if label.isdecimal() else 0


def _current(configuration: Configuration, owned: list[Revision]) -> Revision | None:
    name = template_name(configuration)
    if name:
        return next((revision for revision in owned if revision.metadata.name == name), None)
    matching = [revision for revision in owned if generation_of(revision) == configuration.metadata.generation]
    return matching[0] if matching else None


def _latest_ready(configuration: Configuration, owned: list[Revision], latest: Revision) -> str:
    """Never goes back, but for a rollback to an earlier Revision by its own name."""
    current = configuration.status.latest_ready_revision_name
    if latest.ready and template_name(configuration):
        return latest.metadata.name
    by_name = {revision.metadata.name: revision for revision in owned}
    floor = generation_of(by_name[current]) if current in by_name else 0
    ceiling = configuration.metadata.generation
    ready = [revision for revision in owned if revision.ready and floor <= generation_of(revision) <= ceiling]
    return max(ready, key=generation_of).metadata.name if ready else current


def _ready(conditions: Conditions, status: ConfigurationStatus, latest: Revision, now: str) -> Conditions:
    condition = find_condition(latest.status.conditions, "Ready")
    if condition is not None and condition.status == "False":
        message = f'Revision "{latest.metadata.name}" failed with message: {condition.message}.'
        return CONDITIONS.mark_false(conditions, "Ready", reason="RevisionFailed", message=message, now=now)
    if status.latest_ready_revision_name == status.latest_created_revision_name:
        return CONDITIONS.mark_true(conditions, "Ready", now=now)
    return CONDITIONS.mark_unknown(conditions, "Ready", now=now)


def _failed_to_create(
    configuration: Configuration,
    status: ConfigurationStatus,
    conditions: Conditions,
    message: str,
    now: str,
) -> list[Write]:
    text = f"Revision creation failed with message: {message}."
    conditions = CONDITIONS.mark_false(conditions, "Ready", reason="RevisionFailed", message=text, now=now)
    return _status(configuration, status, conditions)


def _status(configuration: Configuration, status: ConfigurationStatus, conditions: Conditions) -> list[Write]:
    new = msgspec.structs.replace(status, conditions=conditions)
    patch = status_patch(CONFIGURATIONS, configuration.metadata, old=configuration.status, new=new)
    return [patch] if patch else []
