"""Kubernetes resource quantities: `100m`, `1.5`, `128Mi`, `2e3`.

Values are exact (`fractions.Fraction`), so comparing and adding never rounds. Parsing is Kubernetes': a sign,
digits with an optional fraction, then a binary suffix (Ki…Ei), a decimal one (n, u, m, k…E) or an exponent.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction
from functools import lru_cache
from typing import Final

_QUANTITY = re.compile(
    r"(?P<sign>[+-]?)(?P<number>[0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
    r"(?P<suffix>[KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?",
    re.ASCII,
)
_BINARY: Final = {f"{letter}i": 1024**power for power, letter in enumerate("KMGTPE", start=1)}
_DECIMAL: Final = {
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 1000),
    "k": Fraction(10**3),
    "M": Fraction(10**6),
    "G": Fraction(10**9),
    "T": Fraction(10**12),
    "P": Fraction(10**15),
    "E": Fraction(10**18),
}
_MAX_EXPONENT: Final = 1000  # far beyond any real quantity; keeps a hostile exponent from eating memory


class QuantityError(ValueError):
    """The text is not a quantity."""


@lru_cache(maxsize=1024, typed=True)
def parse_quantity(value: str | int | float) -> Fraction:
    """The exact value. JSON numbers are accepted as Kubernetes accepts them. Raises QuantityError."""
    text = repr(value) if isinstance(value, float) else str(value)
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise QuantityError(
            f"quantity {text!r} must be a decimal number with an optional suffix: "
            "Ki Mi Gi Ti Pi Ei, n u m k M G T P E, or an exponent"
        )
    number = Fraction(match["number"].rstrip(".") or "0")
    suffix = match["suffix"] or ""
    if suffix in _BINARY:
        number *= _BINARY[suffix]
    elif suffix in _DECIMAL:
        number *= _DECIMAL[suffix]
    elif suffix:
        exponent = int(suffix[1:])
        if abs(exponent) > _MAX_EXPONENT:
            raise QuantityError(f"quantity {text!r}: exponent out of range (±{_MAX_EXPONENT})")
        number *= Fraction(10) ** exponent
    return -number if match["sign"] == "-" else number


def parse_int(value: str | int | float) -> int:
    """Whole units, rounded up as Kubernetes rounds (bytes of memory). Raises QuantityError."""
    return math.ceil(parse_quantity(value))


def parse_milli(value: str | int | float) -> int:
    """Thousandths, rounded up (millicores of CPU). Raises QuantityError."""
    return math.ceil(parse_quantity(value) * 1000)


def format_milli(milli: int) -> str:
    """Canonical decimal text of thousandths: `250m`, `2`, `1500m`."""
    return str(milli // 1000) if milli % 1000 == 0 else f"{milli}m"


def format_bytes(count: int) -> str:
    """Canonical binary text: the largest suffix that divides, `350Mi`, else the plain number."""
    for power, letter in reversed(list(enumerate("KMGTPE", start=1))):
        if count and count % 1024**power == 0:
            return f"{count // 1024**power}{letter}i"
    return str(count)
