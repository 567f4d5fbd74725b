"""What a container left behind when it ended: why, and its last words."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from serving.api.pod import Container, Pod
from serving.local.node.logs import tail_text
from serving.local.node.paths import NodePaths
from serving.local.node.state import Exit
from serving.local.sandbox.protocol import ContainerExit

MESSAGE_LIMIT: Final = 4096
LOG_MESSAGE_LIMIT: Final = 2048
LOG_MESSAGE_LINES: Final = 80


def read_exit(ended: ContainerExit, container: Container, pod: Pod, paths: NodePaths) -> Exit:
    """The exit with its termination message: what the container wrote, or with FallbackToLogsOnError the end of
    its log. Blocking; call it in a thread."""
    meta = pod.metadata
    message = ended.termination_message[:MESSAGE_LIMIT]
    failed = ended.exit_code != 0
    if not message and failed and container.termination_message_policy == "FallbackToLogsOnError":
        log = paths.log(meta.namespace, meta.name, meta.uid, ended.name, ended.attempt)
        message = _last_lines(log)
    reason = "OOMKilled" if ended.oom_killed else "Error" if failed else "Completed"
    return Exit(
        exit_code=ended.exit_code,
        signal=ended.signal,
        reason=reason,
        message=message,
        started_at=ended.started_at,
        finished_at=ended.finished_at,
    )


def _last_lines(log: Path) -> str:
    try:
        with log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - 4 * LOG_MESSAGE_LIMIT, 0))
            raw = file.read()
    except OSError:
        return ""
    return tail_text(raw, lines=LOG_MESSAGE_LINES)[-LOG_MESSAGE_LIMIT:]
