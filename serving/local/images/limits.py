"""Bounds on what an image may ask of this machine. Pure values, in bytes and counts.

An image is input from a stranger: each bound has a cheap attack behind it (a gzip or sparse bomb, a million
empty files, names that no tool can delete again, metadata that has to fit into memory).
"""

from __future__ import annotations

import msgspec

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    document_bytes: int = 4 * MIB
    """A manifest, an index or a token answer: held in memory."""
    config_bytes: int = 8 * MIB
    layers: int = 512
    blob_bytes: int = 10 * GIB
    """One layer as stored or transferred (compressed)."""
    image_bytes: int = 20 * GIB
    """All layers as transferred."""
    unpacked_bytes: int = 32 * GIB
    """All files of all layers, holes counted as data."""
    entries: int = 1_000_000
    """Of all layers."""
    ratio: int = 400
    """Unpacked to packed, looked at after `ratio_grace` unpacked bytes: zeros compress 1000:1, programs 4:1."""
    ratio_grace: int = 512 * MIB
    name_bytes: int = 255
    """One path component, the kernel's own limit."""
    path_bytes: int = 3072
    """Leaves room below PATH_MAX for the directory it is unpacked in."""
    depth: int = 200
    """Deeper trees break recursive tools."""
    header_bytes: int = MIB
    """One extended tar header: held in memory."""
