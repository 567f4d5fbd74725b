"""What a container executes, where and as whom: the pod's word over the image's."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from serving.api.pod import Container, Pod
from serving.local.images.protocol import ImageConfig
from serving.local.node.envvars import ConfigError, expand
from serving.local.node.podstatus import pod_ref


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    user: str
    """`uid[:gid]` or names as in an image configuration; empty = root."""
    groups: tuple[int, ...] = ()


def argv(container: Container, image: ImageConfig, values: Mapping[str, str]) -> tuple[str, ...]:
    """`command` replaces the image's entrypoint and its cmd, `args` only its cmd. Raises ConfigError."""
    command = tuple(expand(word, values) for word in container.command)
    args = tuple(expand(word, values) for word in container.args)
    if command:
        words = (*command, *args)
    elif args:
        words = (*image.entrypoint, *args)
    else:
        words = (*image.entrypoint, *image.cmd)
    if not words:
        raise ConfigError("no command specified", reason="CreateContainerError")
    return words


def working_dir(container: Container, image: ImageConfig) -> str:
    return container.working_dir or image.working_dir or "/"


def identity(container: Container, pod: Pod, image: ImageConfig) -> Identity:
    """User and groups: the container's security context, then the pod's, then the image's user.

    Raises ConfigError when runAsNonRoot is set and the user is, or may be, root.
    """
    own, shared = container.security_context, pod.spec.security_context
    uid = _first(own.run_as_user if own else None, shared.run_as_user if shared else None)
    gid = _first(own.run_as_group if own else None, shared.run_as_group if shared else None)
    non_root = _first(own.run_as_non_root if own else None, shared.run_as_non_root if shared else None)
    if non_root:
        _check_non_root(container, pod, image, uid)
    base = str(uid) if uid is not None else image.user
    if gid is not None:
        base = f"{base.partition(':')[0] or '0'}:{gid}"
    groups = (*shared.supplemental_groups, *((shared.fs_group,) if shared.fs_group else ())) if shared else ()
    return Identity(user=base, groups=tuple(dict.fromkeys(groups)))


def _check_non_root(container: Container, pod: Pod, image: ImageConfig, uid: int | None) -> None:
    where = f'(pod: "{pod_ref(pod)}", container: {container.name})'
    if uid == 0:
        raise ConfigError(f"container's runAsUser breaks non-root policy {where}")
    if uid is not None:
        return
    name = image.user.partition(":")[0]
    if name in ("", "0"):
        raise ConfigError(f"container has runAsNonRoot and image will run as root {where}")
    if not name.isdecimal():
        raise ConfigError(
            f"container has runAsNonRoot and image has non-numeric user ({name}), cannot verify user is "
            f"non-root {where}"
        )


def _first(own: int | bool | None, shared: int | bool | None) -> int | bool | None:
    return own if own is not None else shared
