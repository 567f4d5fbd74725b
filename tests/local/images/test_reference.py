from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.local.images.reference import InvalidReferenceError, Reference, is_digest, parse_reference

HEX = "0123456789abcdef" * 4
DIGEST = f"sha256:{HEX}"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("hello", "index.docker.io/library/hello:latest"),
        ("hello:v1", "index.docker.io/library/hello:v1"),
        ("team/app", "index.docker.io/team/app:latest"),
        ("docker.io/nginx", "index.docker.io/library/nginx:latest"),
        ("docker.io/team/app:1", "index.docker.io/team/app:1"),
        ("index.docker.io/nginx", "index.docker.io/library/nginx:latest"),
        ("dev.local/hello", "dev.local/hello:latest"),
        ("dev.local/hello:latest", "dev.local/hello:latest"),
        ("localhost/app", "localhost/app:latest"),
        ("localhost:5000/app", "localhost:5000/app:latest"),
        ("localhost:5000/app:v1", "localhost:5000/app:v1"),
        ("127.0.0.1:5000/a/b/c", "127.0.0.1:5000/a/b/c:latest"),
        ("[::1]:5000/app", "[::1]:5000/app:latest"),
        ("gcr.io/project/app@" + DIGEST, "gcr.io/project/app@" + DIGEST),
        ("gcr.io/project/app:v1@" + DIGEST, "gcr.io/project/app@" + DIGEST),
        ("my_app-1.x/y__z", "my_app-1.x/y__z:latest"),
        ("oci:/srv/layout", "oci:/srv/layout"),
        ("oci:/srv/layout:v1", "oci:/srv/layout:v1"),
        ("oci:/srv/layout:v1@" + DIGEST, "oci:/srv/layout:v1@" + DIGEST),
        ("docker-archive:/a.tar", "docker-archive:/a.tar"),
        ("docker-archive:/a.tar:repo:tag", "docker-archive:/a.tar:repo:tag"),
        ("dir:/srv/a:b@c", "dir:/srv/a:b@c"),
        ("dir:/srv/app@" + DIGEST, "dir:/srv/app@" + DIGEST),
    ],
)
def test_canonical_names(text: str, name: str) -> None:
    assert parse_reference(text).name == name


@pytest.mark.parametrize(
    "text",
    [
        *("", "a", "Hello", "hello:", "hello:a b", "hello:" + "x" * 129, "hello@sha256:1234", "hello@md5:" + HEX),
        *("a" * 256, "hello world", "/hello", "hello/", "a//b", "a/../b", "../b", "a/./b", "he\x00llo", "héllo"),
        *("user@host.io/app", "host.io:port/app", "host.io:/app", "http://host.io/app", "oci:", "dir:"),
        *("docker-archive::tag", "hello@" + DIGEST + "@" + DIGEST, "hello@" + DIGEST.upper()),
    ],
)
def test_what_is_no_reference_is_named_in_the_error(text: str) -> None:
    with pytest.raises(InvalidReferenceError) as caught:
        parse_reference(text)
    assert str(caught.value).startswith("could not parse reference: ")


def test_the_error_is_the_text_that_knative_prints() -> None:
    with pytest.raises(InvalidReferenceError, match=r"^could not parse reference: in valid$"):
        parse_reference("in valid")


def test_a_name_can_be_pinned() -> None:
    assert parse_reference("hello:v1").pinned(DIGEST) == f"index.docker.io/library/hello@{DIGEST}"
    assert parse_reference("dir:/srv/app").pinned(DIGEST) == f"dir:/srv/app@{DIGEST}"
    assert parse_reference("oci:/srv/l:v1").pinned(DIGEST) == f"oci:/srv/l:v1@{DIGEST}"


component = st.from_regex(r"\A[a-z0-9]{2,}(?:[._-][a-z0-9]+){0,2}\Z")
repositories = st.lists(component, min_size=1, max_size=4).map("/".join).filter(lambda text: 2 <= len(text) <= 200)
registries = st.sampled_from(["", "index.docker.io/", "gcr.io/", "localhost:5000/", "[::1]:80/", "localhost/"])
tags = st.text(string.ascii_letters + string.digits + "_.-", min_size=1, max_size=128)
digests = st.text("0123456789abcdef", min_size=64, max_size=64).map("sha256:".__add__)


@given(registries, repositories, st.none() | tags, st.none() | digests)
def test_canonical_names_are_fixed_points(
    registry: str, repository: str, tag: str | None, digest: str | None
) -> None:
    text = registry + repository + (f":{tag}" if tag else "") + (f"@{digest}" if digest else "")
    parsed = parse_reference(text)
    again = parse_reference(parsed.name)
    assert again.name == parsed.name
    assert (again.registry, again.repository) == (parsed.registry, parsed.repository)
    assert bool(parsed.tag) != bool(parsed.digest)
    assert parse_reference(parsed.pinned(DIGEST)).digest == DIGEST


@given(st.sampled_from(["oci", "docker-archive", "dir"]), st.from_regex(r"\A/[a-z/._-]{0,40}\Z"), digests)
def test_sources_keep_their_path(transport: str, path: str, digest: str) -> None:
    parsed = parse_reference(f"{transport}:{path}")
    assert (parsed.transport, parsed.path, parsed.digest) == (transport, path, "")
    assert parse_reference(parsed.pinned(digest)) == Reference(
        text=parsed.pinned(digest), transport=parsed.transport, path=path, digest=digest
    )


@given(st.text(max_size=80) | st.text("ab:/@.-_[]0A", max_size=40))
def test_any_text_is_a_reference_or_an_error(text: str) -> None:
    try:
        parsed = parse_reference(text)
    except InvalidReferenceError:
        return
    assert parsed.name
    assert parsed.text == text
    if parsed.transport == "registry":
        assert ".." not in parsed.repository.split("/")
        assert parsed.name.isascii()


@given(st.text(max_size=80))
def test_only_sha256_is_a_digest(text: str) -> None:
    assert not is_digest(text) or (len(text) == 71 and text.startswith("sha256:"))
