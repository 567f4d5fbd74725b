"""In-memory stand-ins for what the node agent talks to: an API server, a sandbox runtime, an image store."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import socket
import time
import uuid
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from serving.api.meta import JsonObject, JsonPatch
from serving.api.pod import Pod
from serving.api.resources import PODS, Resource
from serving.kube.client import KubeClient, WatchEvent
from serving.kube.connection import Connection
from serving.kube.errors import AlreadyExists, Conflict, KubeError, NotFound
from serving.local.images.protocol import Credentials, Image, ImageConfig, ImageError, Rootfs
from serving.local.sandbox.protocol import (
    ContainerExit,
    ContainerSpec,
    ContainerState,
    ExecResult,
    Execution,
    PodAddress,
    PodSandboxSpec,
    RungReport,
    Sandbox,
    SandboxError,
    Stats,
    Streams,
)

Key = tuple[str, str, str]


async def _no_token() -> str | None:
    return None


class FakeKube(KubeClient):
    """One API server's worth of objects. `writes` records every successful write but events and leases."""

    def __init__(self) -> None:
        super().__init__(Connection(base_url="http://fake", authorization=_no_token))
        self.objects: dict[Key, JsonObject] = {}
        self.history: list[tuple[str, str, JsonObject]] = []
        self.writes: list[tuple[str, str, JsonObject]] = []
        self.failures: list[KubeError] = []
        """Raised by the next writes to pods, one each."""
        self.token_requests: list[tuple[str, str, JsonObject]] = []
        self.token_failures: list[KubeError] = []
        """Raised by the next requests for tokens, one each."""
        self.token_gate = asyncio.Event()
        """While it is not set, requests for tokens wait."""
        self.token_gate.set()
        self.token_seconds: float | None = None
        """How long tokens live, whatever was asked for."""
        self.watches: Counter[str] = Counter()
        """How many were ever begun, by plural."""
        self.changed = asyncio.Event()
        self._version = 0

    def put(self, resource: Resource, item: JsonObject) -> JsonObject:
        """Store without counting as a write of the agent's."""
        item = copy.deepcopy(item)
        meta = item.setdefault("metadata", {})
        meta.setdefault("uid", str(uuid.uuid4()))
        meta.setdefault("creationTimestamp", "2026-01-01T00:00:00Z")
        self._store(resource, item)
        return item

    def pod(self, name: str, namespace: str = "default") -> Pod:
        return msgspec.convert(self.objects["pods", namespace, name], Pod)

    def find(self, resource: Resource, name: str, namespace: str = "") -> JsonObject | None:
        return self.objects.get((resource.plural, namespace, name))

    async def until(self, check: Callable[[], Any], *, seconds: float = 5.0) -> None:
        """Wait for a state of the store."""
        async with asyncio.timeout(seconds):
            while not _holds(check):
                self.changed.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.changed.wait(), 0.01)

    async def get(self, resource: Resource, name: str, namespace: str = "") -> JsonObject:
        found = self.objects.get((resource.plural, namespace, name))
        if found is None:
            raise NotFound(404, {"message": f'{resource.plural} "{name}" not found'})
        return copy.deepcopy(found)

    async def list_raw(
        self, resource: Resource, namespace: str = "", *, label_selector: str = "", field_selector: str = ""
    ) -> bytes:
        name = _selected(field_selector)
        items = [
            item
            for key, item in self.objects.items()
            if key[0] == resource.plural and namespace in ("", key[1]) and name in ("", key[2])
        ]
        body = {"metadata": {"resourceVersion": str(self._version)}, "items": items}
        return json.dumps(body).encode()

    async def watch(
        self,
        resource: Resource,
        namespace: str = "",
        *,
        resource_version: str,
        label_selector: str = "",
        field_selector: str = "",
        timeout_seconds: int,
    ) -> AsyncGenerator[WatchEvent, None]:
        position = 0
        name = _selected(field_selector)
        self.watches[resource.plural] += 1
        while True:
            while position < len(self.history):
                kind, plural, item = self.history[position]
                position += 1
                meta = item["metadata"]
                newer = int(meta["resourceVersion"]) > int(resource_version)
                chosen = namespace in ("", meta.get("namespace")) and name in ("", meta["name"])
                if plural == resource.plural and newer and chosen:
                    yield WatchEvent(kind, msgspec.Raw(json.dumps(item).encode()))
            self.changed.clear()
            await self.changed.wait()

    async def create(
        self, resource: Resource, body: JsonObject, namespace: str = "", *, dry_run: bool = False
    ) -> JsonObject:
        await asyncio.sleep(0)
        meta = body["metadata"]
        key = (resource.plural, namespace or meta.get("namespace", ""), meta["name"])
        if key in self.objects:
            raise AlreadyExists(409, {"reason": "AlreadyExists"})
        item = copy.deepcopy(body)
        if key[1]:
            item["metadata"]["namespace"] = key[1]
        self._note(resource, "create", body)
        return self.put(resource, item)

    async def create_subresource(
        self, resource: Resource, name: str, subresource: str, body: JsonObject, namespace: str = ""
    ) -> JsonObject:
        """Tokens of service accounts: `token-1`, `token-2`, … in the order of the requests."""
        await asyncio.sleep(0)
        await self.token_gate.wait()
        assert (resource.plural, subresource) == ("serviceaccounts", "token")
        if self.token_failures:
            raise self.token_failures.pop(0)
        self.token_requests.append((namespace, name, body["spec"]))
        expires = datetime.now(UTC) + timedelta(seconds=self.token_seconds or body["spec"]["expirationSeconds"])
        status = {
            "token": f"token-{len(self.token_requests)}",
            "expirationTimestamp": expires.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        return {**body, "status": status}

    async def patch(
        self,
        resource: Resource,
        name: str,
        patch: JsonObject | JsonPatch,
        namespace: str = "",
        *,
        subresource: str = "",
    ) -> JsonObject:
        await asyncio.sleep(0)
        if resource is PODS and self.failures:
            raise self.failures.pop(0)
        assert isinstance(patch, dict)
        current = await self.get(resource, name, namespace)
        uid = patch.get("metadata", {}).get("uid")
        if uid is not None and uid != current["metadata"]["uid"]:
            raise Conflict(409, {"reason": "Conflict"})
        new = merge(current, patch)
        if subresource == "status":
            new["spec"] = current.get("spec", {})
        self._note(resource, "patch", patch)
        self._store(resource, new)
        return copy.deepcopy(new)

    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str = "",
        *,
        uid: str | None = None,
        grace_period_seconds: int | None = None,
        propagation: str | None = None,
    ) -> None:
        await asyncio.sleep(0)
        current = await self.get(resource, name, namespace)
        if uid is not None and uid != current["metadata"]["uid"]:
            raise Conflict(409, {"reason": "Conflict"})
        grace = grace_period_seconds
        if grace is None:
            grace = current.get("spec", {}).get("terminationGracePeriodSeconds", 30)
        if resource is PODS and (grace > 0 or current["metadata"].get("finalizers")):
            if "deletionTimestamp" not in current["metadata"]:
                end = datetime.now(UTC) + timedelta(seconds=grace)
                current["metadata"]["deletionTimestamp"] = end.strftime("%Y-%m-%dT%H:%M:%SZ")
            current["metadata"]["deletionGracePeriodSeconds"] = grace
            self._store(resource, current)
            return
        self._note(resource, "delete", {"name": name})
        self.remove(resource, name, namespace)

    def remove(self, resource: Resource, name: str, namespace: str = "") -> None:
        item = copy.deepcopy(self.objects.pop((resource.plural, namespace, name)))
        self._version += 1
        item["metadata"]["resourceVersion"] = str(self._version)
        self.history.append(("DELETED", resource.plural, item))
        self.changed.set()

    def pod_writes(self) -> list[JsonObject]:
        return [body for plural, verb, body in self.writes if plural == "pods" and verb == "patch"]

    def _note(self, resource: Resource, verb: str, body: JsonObject) -> None:
        if resource.plural not in ("events", "leases"):
            self.writes.append((resource.plural, verb, copy.deepcopy(body)))

    def _store(self, resource: Resource, item: JsonObject) -> None:
        meta = item["metadata"]
        key = (resource.plural, meta.get("namespace", ""), meta["name"])
        self._version += 1
        meta["resourceVersion"] = str(self._version)
        kind = "MODIFIED" if key in self.objects else "ADDED"
        self.objects[key] = item
        self.history.append((kind, resource.plural, copy.deepcopy(item)))
        self.changed.set()


def _selected(field_selector: str) -> str:
    field, _, value = field_selector.partition("=")
    return value if field == "metadata.name" else ""


def _holds(check: Callable[[], Any]) -> bool:
    try:
        return bool(check())
    except (KeyError, IndexError):
        return False


def merge(target: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    out = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            out.pop(key, None)
        else:
            out[key] = merge(out.get(key), value)
    return out


class FakeSandbox:
    """Runs nothing; `finish` ends a container. A container whose argv begins with `exit` ends at once."""

    def __init__(self, spec: PodSandboxSpec, runtime: FakeRuntime, address: PodAddress) -> None:
        self.spec = spec
        self.address = address
        self.started: list[ContainerSpec] = []
        self.signals: list[tuple[str, int]] = []
        self.destroyed = False
        self.exec_code = 0
        self.obeys_sigterm = True
        self._runtime = runtime
        self._states: dict[tuple[str, int], ContainerState] = {}
        self._exits: asyncio.Queue[ContainerExit | None] = asyncio.Queue()

    def running(self) -> list[str]:
        return [state.name for state in self._states.values() if state.exit is None]

    async def start_container(self, container: ContainerSpec) -> ContainerState:
        await asyncio.sleep(self._runtime.start_seconds)
        if self.destroyed:
            raise SandboxError("CreateContainerError", "the sandbox is gone")
        if container.argv[0] == "missing":
            raise SandboxError("RunContainerError", 'exec: "missing": executable file not found in $PATH')
        self.started.append(container)
        state = ContainerState(name=container.name, attempt=container.attempt, pid=1, started_at=time.time())
        self._states[container.name, container.attempt] = state
        if container.argv[0] == "exit":
            self.finish(container.name, int(container.argv[1]))
        return state

    def finish(self, name: str, code: int, *, signum: int = 0, message: str = "") -> None:
        key = max(key for key in self._states if key[0] == name)
        state = self._states[key]
        if state.exit is not None:
            return
        ended = ContainerExit(
            name=name,
            attempt=key[1],
            exit_code=code,
            signal=signum,
            started_at=state.started_at,
            finished_at=time.time(),
            termination_message=message,
        )
        self._states[key] = msgspec.structs.replace(state, exit=ended)
        self._exits.put_nowait(ended)

    def lose(self) -> None:
        """What holds the pod was killed."""
        for name in self.running():
            self.finish(name, 137, signum=9)
        self._exits.put_nowait(None)

    def abandon(self) -> None:
        """The agent died: exits that it did not see wait for the next one."""
        self._exits = asyncio.Queue()

    def containers(self) -> Sequence[ContainerState]:
        return list(self._states.values())

    async def exits(self) -> AsyncIterator[ContainerExit]:
        while True:
            ended = await self._exits.get()
            if ended is None:
                return
            yield ended

    async def signal(self, name: str, signum: int) -> None:
        self.signals.append((name, signum))
        if self.obeys_sigterm and name in self.running():
            self.finish(name, 143, signum=signum)

    async def kill(self, name: str) -> None:
        self.signals.append((name, 9))
        if name in self.running():
            self.finish(name, 137, signum=9)

    async def exec(self, name: str, argv: Sequence[str], *, timeout_seconds: float) -> ExecResult:
        await asyncio.sleep(0)
        return ExecResult(exit_code=self.exec_code, stdout=" ".join(argv).encode(), stderr=b"")

    async def execute(
        self, name: str, argv: Sequence[str], *, stdin: bool, stdout: bool, stderr: bool, tty: bool
    ) -> Execution:
        raise SandboxError("Unsupported", "a fake runs nothing")

    async def attach(self, name: str) -> Streams:
        raise SandboxError("Unsupported", "a fake runs nothing")

    async def close_stdin(self, name: str) -> None: ...

    async def tcp_socket(self) -> socket.socket:
        made = socket.socket()
        made.setblocking(False)
        return made

    async def freeze(self) -> None: ...
    async def thaw(self) -> None: ...
    async def snapshot(self, directory: Path) -> None:
        raise SandboxError("Unsupported", "no snapshots")

    async def stats(self) -> Stats:
        return Stats(cpu_seconds=1.5, memory_bytes=4096, pids=1)

    async def destroy(self) -> None:
        await asyncio.sleep(0)
        self.destroyed = True
        self._runtime.sandboxes.pop(self.spec.pod_uid, None)


class FakeRuntime:
    rung = "fake"

    def __init__(self) -> None:
        self.sandboxes: dict[str, FakeSandbox] = {}
        self.created: list[FakeSandbox] = []
        self.create_seconds = 0.0
        self.start_seconds = 0.0
        self.failures: list[SandboxError] = []
        self.port: int | None = None
        self.ip = "127.0.0.1"
        self.concurrent = 0
        self.most_concurrent = 0

    async def prove(self) -> RungReport:
        return RungReport(rung=self.rung, works=True, why="a fake")

    async def start(self) -> None: ...
    async def stop(self) -> None: ...

    def held(self) -> list[FakeSandbox]:
        return list(self.sandboxes.values())

    async def create(self, spec: PodSandboxSpec) -> Sandbox:
        self.concurrent += 1
        self.most_concurrent = max(self.most_concurrent, self.concurrent)
        await asyncio.sleep(self.create_seconds)
        self.concurrent -= 1
        if self.failures:
            raise self.failures.pop(0)
        assert await asyncio.to_thread(spec.state_dir.is_dir)
        sandbox = FakeSandbox(spec, self, PodAddress(ip=self.ip, port=self.port))
        self.sandboxes[spec.pod_uid] = sandbox
        self.created.append(sandbox)
        return sandbox

    async def restore(self, spec: PodSandboxSpec, directory: Path) -> Sandbox:
        raise SandboxError("Unsupported", "no snapshots")

    async def adopt(self) -> Sequence[Sandbox]:
        return list(self.sandboxes.values())


class FakeImages:
    """Has every image but those in `broken`. `pins` counts unreleased uses by digest."""

    def __init__(self) -> None:
        self.broken: dict[str, ImageError] = {}
        self.pins: dict[str, int] = {}
        self.asked: list[tuple[str, str, Credentials | None]] = []
        self.seconds = 0.0
        self.config = ImageConfig(entrypoint=("/app",), env=("PATH=/bin", "FROM_IMAGE=yes"))

    async def resolve(self, reference: str, *, credentials: Credentials | None = None) -> str:
        return f"{reference}@sha256:0"

    async def ensure(
        self, reference: str, *, pull_policy: str = "IfNotPresent", credentials: Credentials | None = None
    ) -> Image:
        self.asked.append((reference, pull_policy, credentials))
        await asyncio.sleep(self.seconds)
        if reference in self.broken:
            raise self.broken[reference]
        digest = f"sha256:{reference}"
        self.pins[digest] = self.pins.get(digest, 0) + 1
        return Image(
            reference=reference,
            digest=digest,
            repo_digest=f"{reference}@{digest}",
            config=self.config,
            rootfs=Rootfs(directory=Path("/")),
            size_bytes=1,
        )

    def release(self, digest: str) -> None:
        self.pins[digest] -= 1
