"""go-containerregistry's registry on loopback, and what puts an image of our own store into it.

Nothing is faked: tags are resolved, digests checked and unknown names refused by somebody else's program.
"""

from __future__ import annotations

import http.client
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from serving.local.images.content import ContentStore
from serving.local.images.limits import Limits
from tests.cluster.control_plane import end_with_parent

_MANIFEST_BYTES = 1 << 20


@contextmanager
def running_registry(program: Path, *, log: Path) -> Iterator[str]:
    """Yields `localhost:PORT`. Images are kept in its memory."""
    with (
        log.open("wb") as output,
        subprocess.Popen(
            [program, "-port", "0"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.PIPE,
            preexec_fn=end_with_parent,
        ) as process,
    ):
        try:
            yield f"localhost:{_announced_port(process)}"
        finally:
            process.terminate()


def _announced_port(process: subprocess.Popen[bytes]) -> int:
    assert process.stderr is not None
    line = process.stderr.readline().decode()
    if "serving on port" not in line:
        raise RuntimeError(f"the registry did not start: {line.strip() or 'it ended'}")
    return int(line.rpartition(" ")[2])


def push(address: str, repository: str, *, store: Path, name: str, tag: str = "latest") -> str:
    """Push the image `name` of an image store. Returns its digest. Raises RuntimeError when it is refused."""
    content = ContentStore(store, limits=Limits())
    record = content.name(name)
    if record is None:
        raise RuntimeError(f"{name} is not in {store}")
    manifest = content.read_blob(record.digest, limit=_MANIFEST_BYTES)
    document = json.loads(manifest)
    connection = http.client.HTTPConnection(address, timeout=60)
    try:
        for blob in (document["config"], *document["layers"]):
            _push_blob(connection, repository, content.blob_path(blob["digest"]), blob["digest"])
        headers = {"Content-Type": document["mediaType"]}
        _send(connection, "PUT", f"/v2/{repository}/manifests/{tag}", manifest, headers)
    finally:
        connection.close()
    return record.digest


def _push_blob(connection: http.client.HTTPConnection, repository: str, path: Path, digest: str) -> None:
    location = _send(connection, "POST", f"/v2/{repository}/blobs/uploads/", b"", {})
    separator = "&" if "?" in location else "?"
    with path.open("rb") as file:
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(path.stat().st_size)}
        _send(connection, "PUT", f"{location}{separator}digest={digest}", file, headers)


def _send(
    connection: http.client.HTTPConnection, method: str, path: str, body: object, headers: dict[str, str]
) -> str:
    """Returns the answer's Location."""
    connection.request(method, path, body=body, headers=headers)  # type: ignore[arg-type]  # bytes or a file
    with connection.getresponse() as response:
        answer = response.read()
        if response.status >= 300:
            raise RuntimeError(f"{method} {path}: {response.status} {answer.decode(errors='replace')}")
        return response.headers.get("Location", "")
