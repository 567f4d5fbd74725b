"""Unpacking: what images need, and what attackers try."""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.local.images.limits import MIB, Limits
from serving.local.images.protocol import ImageError
from serving.local.images.store import may_own_files
from serving.local.images.tree import TreeWriter
from serving.local.images.unpack import Cancelled, unpack

from .kit import compress, digest_of, directory, entry, hardlink, symlink, tar

Members = Sequence[tuple[tarfile.TarInfo, bytes]]
SMALL = Limits(unpacked_bytes=MIB, entries=50, ratio=10, ratio_grace=64 * 1024, depth=20)


class Box:
    """A tree to unpack into, next to things that must not be touched."""

    def __init__(self, path: Path) -> None:
        self.outside = path / "outside"
        self.outside.mkdir()
        (self.outside / "secret").write_text("secret")
        self.root = path / "tree"
        self.root.mkdir()
        self.path = path

    def unpack(
        self, *layers: Members, how: str = "", limits: Limits = SMALL, own: bool = False, stop: Event | None = None
    ) -> TreeWriter:
        blobs: list[tuple[Path, str]] = []
        for members in layers:
            plain = tar(members)
            blob = self.path / f"layer{len(blobs)}"
            blob.write_bytes(compress(plain, how))
            blobs.append((blob, digest_of(plain)))
        return unpack(blobs, self.root, limits=limits, own=own, what="img", stop=stop or Event())

    def assert_untouched(self) -> None:
        assert sorted(os.listdir(self.outside)) == ["secret"]
        assert (self.outside / "secret").read_text() == "secret"
        assert stat.S_IMODE(self.outside.stat().st_mode) == 0o755

    def listing(self) -> list[str]:
        return sorted(str(path.relative_to(self.root)) for path in self.root.rglob("*"))


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    made = Box(tmp_path)
    yield made
    made.assert_untouched()


# what images need


@pytest.mark.parametrize("how", ["", "gzip", "zstd"])
def test_files_modes_links_and_times(box: Box, how: str) -> None:
    box.unpack(
        [
            directory("bin", 0o755),
            entry("bin/run", b"#!/bin/sh\n", mode=0o755, mtime=12345),
            symlink("bin/sh", "/bin/run"),
            hardlink("bin/again", "bin/run"),
            entry("fifo", type=tarfile.FIFOTYPE, mode=0o600),
            directory("closed", 0o500),
            entry("closed/inside", b"x"),
            entry("implicit/parent/file", b"y"),
            entry("empty"),
        ],
        how=how,
    )
    run = box.root / "bin/run"
    assert run.read_bytes() == b"#!/bin/sh\n"
    assert (stat.S_IMODE(run.stat().st_mode), run.stat().st_mtime) == (0o755, 12345)
    assert os.readlink(box.root / "bin/sh") == "/bin/run"
    assert (box.root / "bin/again").stat().st_ino == run.stat().st_ino
    assert stat.S_ISFIFO((box.root / "fifo").stat().st_mode)
    assert stat.S_IMODE((box.root / "closed").stat().st_mode) == 0o500
    assert (box.root / "closed/inside").read_bytes() == b"x"
    assert stat.S_IMODE((box.root / "implicit/parent").stat().st_mode) == 0o755


def test_upper_layers_replace_lower_ones(box: Box) -> None:
    box.unpack(
        [directory("a"), entry("a/kept", b"1"), entry("a/changed", b"1"), entry("file", b"1"), directory("dir")],
        [entry("a/changed", b"2"), directory("file"), entry("file/in", b"2"), entry("dir", b"2")],
    )
    assert (box.root / "a/changed").read_bytes() == b"2"
    assert (box.root / "file/in").read_bytes() == b"2"
    assert (box.root / "dir").read_bytes() == b"2"
    assert (box.root / "a/kept").exists()


def test_whiteouts(box: Box) -> None:
    box.unpack(
        [directory("a"), entry("a/x"), entry("a/y"), directory("b"), entry("b/x"), entry("b/deep/z"), entry("c")],
        [entry("a/.wh.x"), entry("b/new"), entry("b/.wh..wh..opq"), entry("b/late"), entry(".wh.c")],
    )
    assert box.listing() == ["a", "a/y", "b", "b/late", "b/new"]


def test_an_opaque_directory_is_emptied_at_every_depth(box: Box) -> None:
    box.unpack(
        [entry("a/b/old"), entry("a/old")],
        [entry("a/b/new"), entry("a/.wh..wh..opq")],
    )
    assert box.listing() == ["a", "a/b", "a/b/new"]


def test_a_whiteout_hides_lower_layers_only(box: Box) -> None:
    box.unpack([entry("a", b"old")], [entry("a", b"new"), entry(".wh.a"), entry(".wh..wh.plnk")])
    assert (box.root / "a").read_bytes() == b"new"


def test_links_inside_the_tree_are_followed_as_in_merged_usr(box: Box) -> None:
    box.unpack(
        [
            directory("usr/lib"),
            symlink("lib", "usr/lib"),
            symlink("lib64", "/usr/lib"),
            symlink("up", "../../usr"),
        ],
        [entry("lib/one"), entry("lib64/two"), entry("up/lib/three"), hardlink("lib/four", "lib64/two")],
    )
    assert sorted(os.listdir(box.root / "usr/lib")) == ["four", "one", "three", "two"]
    assert (box.root / "lib").is_symlink()


def test_an_absolute_name_is_meant_inside(box: Box) -> None:
    box.unpack([entry("/etc/app.conf", b"x"), entry("./etc//b", b"y")])
    assert sorted(os.listdir(box.root / "etc")) == ["app.conf", "b"]


def test_duplicates_the_last_one_wins(box: Box) -> None:
    box.unpack([entry("a", b"1"), directory("a"), symlink("a", "b"), entry("a", b"4"), hardlink("a", "a")])
    assert (box.root / "a").read_bytes() == b"4"


def test_owners_are_recorded_and_set_uid_dropped_without_root(box: Box) -> None:
    done = box.unpack(
        [
            entry("su", mode=0o4755, uid=0, gid=0),
            entry("app", mode=0o2644, uid=65532, gid=7),
            entry("gone", uid=5),
            directory("home"),
            symlink("link", "app"),
        ],
        [entry(".wh.gone")],
    )
    assert done.owners == {"app": (65532, 7)}
    assert stat.S_IMODE((box.root / "su").stat().st_mode) == 0o755
    assert stat.S_IMODE((box.root / "app").stat().st_mode) == 0o644


@pytest.mark.root
@pytest.mark.skipif(not may_own_files(), reason="giving files to users needs root")
def test_owners_set_uid_and_attributes_with_root(box: Box) -> None:
    capability = {
        "SCHILY.xattr.security.capability": b"\x01\0\0\2\0\4\0\0\0\0\0\0\0\0\0\0\0\0\0\0".decode("latin-1")
    }
    steering = {"SCHILY.xattr.trusted.overlay.opaque": "y", "SCHILY.xattr.user.overlay.opaque": "y"}
    done = box.unpack(
        [
            entry("su", mode=0o4755, uid=2020, gid=3000, pax_headers={"SCHILY.xattr.user.note": "hi"} | steering),
            entry("capable", mode=0o755, pax_headers=capability),
            symlink("link", "/nowhere"),
        ],
        own=True,
    )
    found = (box.root / "su").stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (2020, 3000, 0o4755)
    assert os.listxattr(box.root / "su") == ["user.note"]
    assert os.listxattr(box.root / "capable") == ["security.capability"]
    assert done.owners == {}


# what attackers try


@pytest.mark.parametrize(
    "members",
    [
        [entry("../outside/new", b"x")],
        [entry("a/../../outside/new", b"x")],
        [entry("..", b"x")],
        [directory("..", 0o777)],
        [entry("a/..")],
        [hardlink("in", "../outside/secret"), entry("in", b"x")],
        [hardlink("in", "/outside/secret")],
        [hardlink("in", "missing")],
        [hardlink("in", "/")],
        [directory("d"), hardlink("in", "d")],
        [entry(".wh...")],
        [entry(".wh..")],
        [entry(".wh.")],
        [entry("../.wh.outside")],
        [symlink("loop", "loop"), entry("loop/x")],
        [symlink("a", "b"), symlink("b", "a"), entry("a/x")],
        [entry("file", b"x"), entry("file/below", b"x")],
        [symlink("empty", "x" * 5000)],
        [entry("x" * 256)],
        [entry("/".join("a" * 25))],
        [entry("é" * 200)],
        [entry(f"n{position}") for position in range(51)],
        [entry("a", b"x" * (MIB + 1))],
        [entry("a", b"x" * (MIB // 2)), entry("b", b"x" * (MIB // 2 + 1))],
        [entry("strange", type=b"Z")],
        [entry("a", uid=2**33)],
    ],
    ids=range(26),
)
def test_hostile_members_are_refused(box: Box, members: Members) -> None:
    with pytest.raises(ImageError, match=r"^img: ") as caught:
        box.unpack(members)
    assert caught.value.reason == "ErrImagePull"


@pytest.mark.parametrize(
    "layers",
    [
        [[symlink("out", "../outside"), entry("out/new", b"x")]],
        [[symlink("out", "{outside}"), entry("out/new", b"x")]],
        [[symlink("out", "../../../../../..{outside}"), entry("out/secret", b"x")]],
        [[symlink("out", "{outside}")], [entry("out/.wh.secret")]],
        [[symlink("out", "{outside}")], [entry("out/.wh..wh..opq")]],
        [[symlink("out", "{outside}")], [directory("out", 0o777)]],
        [[symlink("secret", "{outside}/secret"), entry("secret", b"x")]],
        [[symlink("secret", "{outside}/secret"), hardlink("b", "secret")], [entry("b", b"x", mode=0o777)]],
        [[directory("d"), directory("d/e", 0o700)], [entry("d", b"x"), symlink("d", "{outside}")]],
        [[directory("outside"), directory("d/outside", 0o777), entry(".wh.d"), symlink("d", "..")]],
    ],
    ids=range(10),
)
def test_links_never_lead_out(box: Box, layers: list[Members]) -> None:
    for members in layers:
        for header, _ in members:
            header.linkname = header.linkname.format(outside=box.outside)
    box.unpack(*layers)


def test_devices_are_skipped(box: Box) -> None:
    done = box.unpack(
        [entry("dev/null", type=tarfile.CHRTYPE, devmajor=1, devminor=3), entry("sda", type=tarfile.BLKTYPE)]
    )
    assert done.skipped_devices == 2
    assert box.listing() == []


@pytest.mark.parametrize("how", ["gzip", "zstd"])
def test_bombs_are_refused_early(box: Box, how: str) -> None:
    with pytest.raises(ImageError, match="expands more than 10-fold"):
        box.unpack([entry("zeros", bytes(MIB - 1024))], how=how)


def test_a_sparse_bomb_counts_its_holes(box: Box) -> None:
    header = tarfile.TarInfo("hole")
    header.pax_headers = {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.map": "0,1",
                          "GNU.sparse.size": str(1 << 40), "GNU.sparse.numblocks": "1"}  # fmt: skip
    header.size = 1
    with pytest.raises(ImageError, match="bytes unpacked"):
        box.unpack([(header, b"x")])


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XGLTYPE])
def test_a_header_that_would_fill_the_memory_is_refused(box: Box, kind: bytes) -> None:
    header = tarfile.TarInfo("x")
    header.type = kind
    header.size = 2 * MIB
    blob = box.path / "blob"
    blob.write_bytes(header.tobuf(tarfile.USTAR_FORMAT) + bytes(1024))
    with pytest.raises(ImageError, match="tar header of 2097152 bytes"):
        unpack([(blob, digest_of(b""))], box.root, limits=Limits(), own=False, what="img", stop=Event())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not a tar" * 100,
        compress(b"not a tar", "gzip"),
        compress(tar([entry("a", b"x" * 5000)]), "gzip")[:-20],
        compress(tar([entry("a", b"x" * 5000)]), "zstd")[:-20],
        tar([entry("a", b"x" * 5000)])[:2000],
        b"\x1f\x8b\x08garbage",
        b"\x28\xb5\x2f\xfdgarbage",
    ],
    ids=range(8),
)
def test_damaged_layers(box: Box, data: bytes) -> None:
    blob = box.path / "blob"
    blob.write_bytes(data)
    with pytest.raises(ImageError, match=r"^img: "):
        unpack([(blob, digest_of(b"other"))], box.root, limits=SMALL, own=False, what="img", stop=Event())


def test_a_layer_must_be_the_one_that_the_configuration_names(box: Box) -> None:
    blob = box.path / "blob"
    blob.write_bytes(tar([entry("a")]))
    with pytest.raises(ImageError, match="its configuration says sha256:"):
        unpack([(blob, digest_of(b"other"))], box.root, limits=SMALL, own=False, what="img", stop=Event())


def test_it_stops_when_told(box: Box) -> None:
    stop = Event()
    stop.set()
    with pytest.raises(Cancelled):
        box.unpack([entry("a")], stop=stop)


names = st.lists(st.sampled_from(["a", "b", "..", ".", "", ".wh.a", ".wh..wh..opq", "outside", "secret"]),
                 min_size=1, max_size=4).map("/".join)  # fmt: skip
targets = names | st.sampled_from(
    ["{outside}", "{outside}/secret", "/", "..", "../outside", "../../outside/secret"]
)


@st.composite
def members(draw: st.DrawFn) -> tuple[tarfile.TarInfo, bytes]:
    kind = draw(
        st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
    )
    content = b"evil" if kind == tarfile.REGTYPE else b""
    mode = draw(st.sampled_from([0o777, 0o000, 0o644]))
    linkname = draw(targets) if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
    fields: dict[str, Any] = {"type": kind, "mode": mode, "linkname": linkname}
    return entry(draw(names), content, **fields)


@settings(max_examples=200, deadline=None)
@given(layers=st.lists(st.lists(members(), max_size=8), min_size=1, max_size=3))
def test_nothing_outside_is_ever_touched(
    tmp_path_factory: pytest.TempPathFactory, layers: list[list[tuple[tarfile.TarInfo, bytes]]]
) -> None:
    box = Box(tmp_path_factory.mktemp("box", numbered=True))
    for layer in layers:
        for header, _ in layer:
            header.linkname = header.linkname.format(outside=box.outside)
    try:
        box.unpack(*layers)
    except ImageError:
        pass
    box.assert_untouched()
    assert sorted(path.name for path in box.path.iterdir() if not path.name.startswith("layer")) == [
        "outside",
        "tree",
    ]


def test_the_stream_is_read_in_pieces(box: Box) -> None:
    """A layer larger than any buffer, with trailing bytes after the end of the archive."""
    plain = tar([entry("a", os.urandom(700_000))]) + bytes(200_000)
    blob = box.path / "blob"
    blob.write_bytes(plain)
    unpack([(blob, digest_of(plain))], box.root, limits=SMALL, own=False, what="img", stop=Event())
    assert (box.root / "a").stat().st_size == 700_000
