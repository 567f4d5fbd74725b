"""What a pod's volumes contain: which objects they need, and the files that come of them.

Pure: files are values here; `volume_files` writes them. Kinds: configMap, secret, projected (configMap, secret,
downwardAPI, serviceAccountToken), downwardAPI, emptyDir.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeVar

import msgspec

from serving.api.meta import JsonObject, Model
from serving.api.pod import Container, FieldRef, Pod, PodSpec, ResourceFieldRef
from serving.api.quantity import parse_int
from serving.local.node.envvars import ConfigError, KeyedObjects, PodFacts, field_value, resource_value

_T = TypeVar("_T")
DEFAULT_MODE: Final = 0o644
_PRIVATE_MODE: Final = 0o600
_TOKEN_SECONDS: Final = 3600
_ADDRESSES: Final = ("status.podIP", "status.podIPs")
_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_KINDS: Final = ("configMap", "secret", "projected", "downwardAPI", "emptyDir")


class File(msgspec.Struct, frozen=True):
    content: bytes
    mode: int
    owner: int | None = None
    """User id; None = the agent's own."""


class TokenWanted(msgspec.Struct, frozen=True):
    """A token of the pod's service account. `audience` empty = the API server; `volume` is the first with it."""

    audience: str
    seconds: int
    volume: str


class EmptyDir(msgspec.Struct, frozen=True, kw_only=True):
    memory: bool
    size_limit: int | None = None


class Files(msgspec.Struct, frozen=True):
    """Relative path → file. Written once, replaced as a whole."""

    files: dict[str, File]


class _Item(Model, frozen=True, kw_only=True):
    key: str
    path: str
    mode: int | None = None


class _Keyed(Model, frozen=True, kw_only=True):
    """configMap, secret and their projections; the name has two spellings."""

    name: str = ""
    secret_name: str = ""
    items: tuple[_Item, ...] = ()
    optional: bool = False
    default_mode: int | None = None


class _DownwardItem(Model, frozen=True, kw_only=True):
    path: str
    field_ref: FieldRef | None = None
    resource_field_ref: ResourceFieldRef | None = None
    mode: int | None = None


class _Downward(Model, frozen=True, kw_only=True):
    items: tuple[_DownwardItem, ...] = ()
    default_mode: int | None = None


class _TokenSource(Model, frozen=True, kw_only=True):
    path: str
    audience: str = ""
    expiration_seconds: int | None = None


class _Projection(Model, frozen=True, kw_only=True):
    config_map: _Keyed | None = None
    secret: _Keyed | None = None
    downward_api: _Downward | None = msgspec.field(default=None, name="downwardAPI")
    service_account_token: _TokenSource | None = None


class _Projected(Model, frozen=True, kw_only=True):
    sources: tuple[_Projection, ...] = ()
    default_mode: int | None = None


class _EmptyDirSource(Model, frozen=True, kw_only=True):
    medium: str = ""
    size_limit: str | int | None = None


class Needed(msgspec.Struct, frozen=True):
    """Names of objects that a pod refers to, whether optional or not."""

    config_maps: frozenset[str]
    secrets: frozenset[str]


def unsupported(spec: PodSpec) -> str | None:
    """Why the pod's volumes can never be had here; None = they can. Names become parts of paths here, so they are
    not taken on the API server's word."""
    names = set()
    for volume in spec.volumes:
        name = volume.get("name", "")
        if not _is_label(name):
            return f"volume name {name!r} is not a DNS label"
        names.add(name)
        kinds = [kind for kind, source in volume.items() if kind != "name" and source is not None]
        other = [kind for kind in kinds if kind not in _KINDS]
        if other:
            return f'volume "{name}": {other[0]} is not supported; supported: {", ".join(_KINDS)}'
    for container in _containers(spec):
        if not _is_label(container.name):
            return f"container name {container.name!r} is not a DNS label"
        for mount in container.volume_mounts:
            if mount.name not in names:
                return f'container "{container.name}": volumeMount "{mount.name}" has no matching volume'
    return None


def _is_label(name: object) -> bool:
    return isinstance(name, str) and _LABEL.fullmatch(name) is not None


def needed_objects(spec: PodSpec) -> Needed:
    """Config maps and secrets named by environment and volumes. Raises ConfigError on a malformed volume."""
    maps: set[str] = set()
    secrets: set[str] = set()
    for container in (*spec.init_containers, *spec.containers):
        for source in container.env_from:
            maps |= {source.config_map_ref.name} if source.config_map_ref else set()
            secrets |= {source.secret_ref.name} if source.secret_ref else set()
        for variable in container.env:
            if variable.value_from is not None:
                value = variable.value_from
                maps |= {value.config_map_key_ref.name} if value.config_map_key_ref else set()
                secrets |= {value.secret_key_ref.name} if value.secret_key_ref else set()
    for volume in spec.volumes:
        for projection in _projections(volume):
            maps |= {projection.config_map.name} if projection.config_map else set()
            secrets |= {_secret_name(projection.secret)} if projection.secret else set()
    return Needed(frozenset(maps), frozenset(secrets))


def tokens_wanted(spec: PodSpec) -> list[TokenWanted]:
    """Each kind of token once. Raises ConfigError on a malformed volume."""
    found: dict[tuple[str, int], TokenWanted] = {}
    for volume in spec.volumes:
        for projection in _projections(volume):
            source = projection.service_account_token
            if source is not None:
                found.setdefault(_token_key(source), TokenWanted(*_token_key(source), volume.get("name", "")))
    return list(found.values())


def is_live(volume: JsonObject) -> bool:
    """Whether the volume's files may change during the pod's life."""
    return volume.get("emptyDir") is None


def memory_limits(spec: PodSpec) -> dict[str, int]:
    """Sizes, by name, of the empty directories in memory that have a limit. One that is mounted by a `subPath` has
    none here: its parts are made where the limit's file system would hide them. Raises ConfigError."""
    parts = {mount.name for c in _containers(spec) for mount in c.volume_mounts if mount.sub_path}
    found = {}
    for volume in spec.volumes:
        name = volume.get("name", "")
        if volume.get("emptyDir") is not None and name not in parts:
            source = _convert(volume["emptyDir"], _EmptyDirSource, name)
            limit = parse_int(source.size_limit) if source.size_limit else 0
            if source.medium == "Memory" and limit:
                found[name] = limit
    return found


def needs_address(spec: PodSpec) -> bool:
    """Whether a volume names the pod's address, so that it has to wait for it. Raises ConfigError."""
    return any(path in _ADDRESSES for path in _downward_paths(spec))


def tells_of_metadata(spec: PodSpec) -> bool:
    """Whether a volume has labels or annotations, which may change. Raises ConfigError."""
    return any(path.startswith(("metadata.labels", "metadata.annotations")) for path in _downward_paths(spec))


def _downward_paths(spec: PodSpec) -> Iterator[str]:
    for volume in spec.volumes:
        for projection in _projections(volume):
            for item in projection.downward_api.items if projection.downward_api is not None else ():
                if item.field_ref is not None:
                    yield item.field_ref.field_path


def contents(
    volume: JsonObject,
    pod: Pod,
    objects: KeyedObjects,
    facts: PodFacts,
    tokens: Mapping[TokenWanted, str] | None = None,
) -> Files | EmptyDir:
    """What to put into one volume. Raises ConfigError with the kubelet's text when an object or key is missing."""
    name = volume.get("name", "")
    if volume.get("emptyDir") is not None:
        source = _convert(volume["emptyDir"], _EmptyDirSource, name)
        limit = parse_int(source.size_limit) if source.size_limit else None
        return EmptyDir(memory=source.medium == "Memory", size_limit=limit)
    mode = _default_mode(volume)
    files: dict[str, File] = {}
    for projection in _projections(volume):
        if projection.config_map is not None:
            source_name = projection.config_map.name
            data = objects.config_maps.get(source_name)
            files |= _keyed_files(projection.config_map, source_name, "configmap", data, mode, pod)
        if projection.secret is not None:
            source_name = _secret_name(projection.secret)
            data = objects.secrets.get(source_name)
            files |= _keyed_files(projection.secret, source_name, "secret", data, mode, pod)
        if projection.downward_api is not None:
            files |= _downward_files(projection.downward_api, mode, pod, facts)
        if projection.service_account_token is not None:
            files |= _token_file(projection.service_account_token, mode, pod, tokens or {})
    return Files(files)


def _projections(volume: JsonObject) -> tuple[_Projection, ...]:
    """Every volume of files seen as a projected one."""
    name = volume.get("name", "")
    if volume.get("projected") is not None:
        return _convert(volume["projected"], _Projected, name).sources
    if volume.get("configMap") is not None:
        return (_Projection(config_map=_convert(volume["configMap"], _Keyed, name)),)
    if volume.get("secret") is not None:
        return (_Projection(secret=_convert(volume["secret"], _Keyed, name)),)
    if volume.get("downwardAPI") is not None:
        return (_Projection(downward_api=_convert(volume["downwardAPI"], _Downward, name)),)
    return ()


def _default_mode(volume: JsonObject) -> int:
    for kind in ("projected", "configMap", "secret", "downwardAPI"):
        mode = (volume.get(kind) or {}).get("defaultMode")
        if isinstance(mode, int):
            return mode
    return DEFAULT_MODE


def _keyed_files(source: _Keyed, name: str, kind: str, data: Any, default_mode: int, pod: Pod) -> dict[str, File]:
    if data is None:
        if source.optional:
            return {}
        raise ConfigError(f'{kind} "{name}" not found')
    if not source.items:
        return {key: File(value, default_mode) for key, value in data.items()}
    files = {}
    for item in source.items:
        if item.key in data:
            files[_safe(item.path)] = File(data[item.key], default_mode if item.mode is None else item.mode)
        elif not source.optional:
            where = f"{pod.metadata.namespace}/{name}"
            raise ConfigError(f"references non-existent {kind} key: {item.key} ({where})")
    return files


def _downward_files(source: _Downward, default_mode: int, pod: Pod, facts: PodFacts) -> dict[str, File]:
    files = {}
    for item in source.items:
        if item.field_ref is not None:
            text = field_value(item.field_ref.field_path, pod, facts)
        elif item.resource_field_ref is not None:
            text = resource_value(item.resource_field_ref, pod.spec.containers[0], pod, facts)
        else:
            continue
        files[_safe(item.path)] = File(text.encode(), default_mode if item.mode is None else item.mode)
    return files


def _token_key(source: _TokenSource) -> tuple[str, int]:
    return source.audience, source.expiration_seconds or _TOKEN_SECONDS


def _token_file(
    source: _TokenSource, default_mode: int, pod: Pod, tokens: Mapping[TokenWanted, str]
) -> dict[str, File]:
    """A pod that says whom it runs as gets its token for that user (or group) alone."""
    key = _token_key(source)
    value = next((value for wanted, value in tokens.items() if (wanted.audience, wanted.seconds) == key), None)
    if value is None:
        raise ConfigError("failed to fetch token")
    security = pod.spec.security_context
    owner = _only_user(pod)
    private = owner is not None or (security is not None and security.fs_group is not None)
    return {_safe(source.path): File(value.encode(), _PRIVATE_MODE if private else default_mode, owner)}


def _only_user(pod: Pod) -> int | None:
    """The user that every container is told to run as, None when they are told nothing or differ."""
    shared = pod.spec.security_context.run_as_user if pod.spec.security_context else None
    users = {
        container.security_context.run_as_user
        if container.security_context is not None and container.security_context.run_as_user is not None
        else shared
        for container in _containers(pod.spec)
    }
    return users.pop() if len(users) == 1 else None


def _containers(spec: PodSpec) -> Iterator[Container]:
    yield from spec.init_containers
    yield from spec.containers


def _safe(path: str) -> str:
    """A relative path that stays below the volume. Raises ConfigError."""
    clean = posixpath.normpath(path)
    if not path or clean.startswith(("/", "..")) or ".." in path.split("/"):
        raise ConfigError(f"invalid path {path!r}: must be relative and without '..'")
    return clean


def _secret_name(source: _Keyed) -> str:
    return source.secret_name or source.name


def _convert(value: Any, kind: type[_T], volume: str) -> _T:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise ConfigError(f'volume "{volume}": {error}') from None
