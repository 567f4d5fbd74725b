from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.local.images.limits import Limits
from serving.local.images.manifest import (
    Index,
    Manifest,
    choose,
    go_architecture,
    parse_configuration,
    parse_document,
)
from serving.local.images.protocol import ImageConfig, ImageError

from .kit import FakeImage, digest_of, index_of

LIMITS = Limits()
D = digest_of(b"x")


def descriptor(**fields: Any) -> dict[str, Any]:
    return {"mediaType": "t", "digest": D, "size": 1} | fields


def manifest(**fields: Any) -> bytes:
    return json.dumps({"schemaVersion": 2, "config": descriptor(), "layers": [descriptor()]} | fields).encode()


@pytest.mark.parametrize("docker", [False, True])
def test_manifests_of_both_kinds(docker: bool) -> None:
    image = FakeImage([b"layer"], docker=docker)
    document = parse_document(image.blobs[image.digest], what="x", limits=LIMITS)
    assert isinstance(document, Manifest)
    assert [layer.digest for layer in document.layers] == image.layer_digests


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (b"", "not a valid image manifest"),
        (b"[]", "not a valid image manifest"),
        (b"{}", "not a valid image manifest"),
        (b"[" * 100_000, "not a valid image manifest"),
        (b'{"a": "\xff"}', "not a valid image manifest"),
        (b'{"schemaVersion": 1, "fsLayers": []}', "schema 1"),
        (manifest(config=descriptor(digest="md5:1")), "is not sha256"),
        (manifest(layers=[descriptor(digest="sha256:../../x")]), "is not sha256"),
        (manifest(layers=[descriptor(size=-1)]), "negative size"),
        (manifest(layers=[descriptor(size=11 << 30)]), "at most 10737418240"),
        (manifest(layers=[descriptor(size=9 << 30)] * 3), "at most 21474836480"),
        (manifest(layers=[descriptor()] * 513), "513 layers, at most 512"),
        (manifest(config=descriptor(size=9 << 20)), "at most 8388608"),
        (manifest(layers=[descriptor(mediaType="application/vnd.oci.image.layer.v1.tar+encrypted")]), "encrypted"),
        (b" " * (4 << 20) + b"{}", "at most 4194304 are allowed"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_broken_and_hostile_manifests(raw: bytes, problem: str) -> None:
    with pytest.raises(ImageError, match=problem) as caught:
        parse_document(raw, what="img", limits=LIMITS)
    assert caught.value.reason == "ErrImagePull"
    assert caught.value.permanent
    assert caught.value.message.startswith("img: ")


def test_the_right_platform_is_chosen() -> None:
    images = [FakeImage([b"x"], architecture=name) for name in ("s390x", "amd64", "arm64")]
    index = parse_document(index_of(*images), what="x", limits=LIMITS)
    assert isinstance(index, Index)
    assert choose(index, architecture="arm64", what="x").digest == images[2].digest
    with pytest.raises(ImageError, match="linux/riscv64 wanted, linux/amd64, linux/arm64, linux/s390x, unknown"):
        choose(index, architecture="riscv64", what="x")


def test_architectures_have_go_names() -> None:
    assert [go_architecture(name) for name in ("x86_64", "aarch64", "riscv64")] == ["amd64", "arm64", "riscv64"]


def test_a_whole_configuration() -> None:
    raw = {
        "architecture": "amd64",
        "os": "linux",
        "config": {
            "Entrypoint": ["/run"],
            "Cmd": None,
            "Env": ["A=b"],
            "WorkingDir": "/srv",
            "User": "65532:65532",
            "ExposedPorts": {"8080/tcp": {}, "53/udp": {}, "80": {}, "x/tcp": {}, "99999/tcp": {}},
            "StopSignal": "INT",
            "Labels": {"unknown": "fields are ignored"},
        },
        "rootfs": {"type": "layers", "diff_ids": [D]},
    }
    found = parse_configuration(json.dumps(raw).encode(), what="x")
    assert found.diff_ids == (D,)
    assert found.process == ImageConfig(
        entrypoint=("/run",),
        env=("A=b",),
        working_dir="/srv",
        user="65532:65532",
        exposed_ports=(80, 8080),
        stop_signal="SIGINT",
    )


@pytest.mark.parametrize(
    ("text", "name"),
    [("", "SIGTERM"), ("9", "SIGKILL"), ("SIGQUIT", "SIGQUIT"), ("quit", "SIGQUIT"), ("SIGRTMIN+3", "SIGRTMIN")],
)
def test_stop_signals(text: str, name: str) -> None:
    raw = json.dumps({"config": {"StopSignal": text}}).encode()
    assert parse_configuration(raw, what="x").process.stop_signal == name


@pytest.mark.parametrize(
    "raw", [b"", b"null", b'{"config": {"Cmd": "not a list"}}', b'{"rootfs": {"diff_ids": ["x"]}}',
            b'{"config": {"StopSignal": "SIGNOPE"}}', b'{"config": {"StopSignal": "99"}}'],
)  # fmt: skip
def test_configurations_that_make_no_sense(raw: bytes) -> None:
    with pytest.raises(ImageError) as caught:
        parse_configuration(raw, what="x")
    assert caught.value.reason == "ImageInspectError"


@given(st.binary(max_size=200) | st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.lists(inner)
       | st.dictionaries(st.sampled_from(["manifests", "layers", "config", "digest", "size"]), inner)
       ).map(lambda value: json.dumps(value).encode()))  # fmt: skip
def test_any_bytes_are_a_document_or_an_image_error(raw: bytes) -> None:
    with contextlib.suppress(ImageError):
        parse_document(raw, what="x", limits=LIMITS)
    with contextlib.suppress(ImageError):
        parse_configuration(raw, what="x")
