"""Logging of a server process: one line per record on stderr, text for people or JSON for collectors."""

from __future__ import annotations

import logging
import os
import sys
from datetime import UTC, datetime

import msgspec

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """`{"time", "level", "component", "logger", "message", …extra}`."""

    def __init__(self, component: str) -> None:
        super().__init__()
        self._component = component

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "component": self._component,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {key: str(value) for key, value in vars(record).items() if key not in _STANDARD}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


def configure_logging(component: str) -> None:
    """Send everything to stderr. `NODELESS_LOG_FORMAT` is `text` (default) or `json`, `NODELESS_LOG_LEVEL` any
    level name. Raises ValueError for another value."""
    form = os.environ.get("NODELESS_LOG_FORMAT", "text")
    level = os.environ.get("NODELESS_LOG_LEVEL", "INFO").upper()
    handler = logging.StreamHandler(sys.stderr)
    if form == "json":
        handler.setFormatter(JsonFormatter(component))
    elif form == "text":
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    else:
        raise ValueError(f"NODELESS_LOG_FORMAT={form!r}: must be text or json")
    if level not in logging.getLevelNamesMapping():
        raise ValueError(
            f"NODELESS_LOG_LEVEL={level!r}: must be one of {', '.join(logging.getLevelNamesMapping())}"
        )
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
