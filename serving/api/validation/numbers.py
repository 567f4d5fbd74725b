"""Numbers in annotations, read as Go's strconv reads them."""

from __future__ import annotations

import math
import re
from typing import Final

MAX_INT32: Final = 2**31 - 1
_INTEGER = re.compile(r"[+-]?[0-9]+", re.ASCII)
_DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", re.ASCII)
_HEXADECIMAL = re.compile(r"[+-]?0[xX]([0-9a-fA-F]+\.?[0-9a-fA-F]*|\.[0-9a-fA-F]+)[pP][+-]?[0-9]+", re.ASCII)
_MAX_DIGITS: Final = 32  # int() of a hostile megabyte of digits would take seconds


class NotANumber(ValueError):
    """Not written as a number."""


class OutOfRange(ValueError):
    """A number, but not one of the type."""


def parse_int32(text: str) -> int:
    """Raises NotANumber or OutOfRange."""
    return _parse_int(text, 32)


def parse_int64(text: str) -> int:
    """Raises NotANumber or OutOfRange."""
    return _parse_int(text, 64)


def parse_float(text: str) -> float:
    """A finite number. Raises NotANumber, also for infinity and NaN, which no annotation can mean."""
    if _DECIMAL.fullmatch(text):
        value = float(text)
    elif _HEXADECIMAL.fullmatch(text):
        try:
            value = float.fromhex(text)
        except OverflowError:
            raise NotANumber(text) from None
    else:
        raise NotANumber(text)
    if not math.isfinite(value):
        raise NotANumber(text)
    return value


def format_float(value: float) -> str:
    """As Go prints a float64: shortest, without a fraction of zero, with an exponent from 1e21 on."""
    return str(int(value)) if value.is_integer() and abs(value) < 1e21 else repr(value)


def _parse_int(text: str, bits: int) -> int:
    if not _INTEGER.fullmatch(text):
        raise NotANumber(text)
    limit = 1 << (bits - 1)
    if len(text.lstrip("+-0")) > _MAX_DIGITS or not -limit <= int(text) < limit:
        raise OutOfRange(text)
    return int(text)
