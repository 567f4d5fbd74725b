"""The best sandbox that this machine offers, found by booting one.

The order is the ladder of rungs, best first. A rung that is not chosen is stopped again, so that probing leaves
nothing behind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from serving.local.network.service import PodNetwork
from serving.local.sandbox.namespace import NamespaceRuntime
from serving.local.sandbox.process import ProcessRuntime
from serving.local.sandbox.protocol import RungReport, SandboxRuntime

AUTO = "auto"
RUNGS = ("namespace", "process")
"""Best first."""

Factory = Callable[[], SandboxRuntime]


class NoSandbox(Exception):
    """No rung works, or not the one that was asked for. `reports` say why."""

    def __init__(self, message: str, reports: list[RungReport]) -> None:
        super().__init__(message)
        self.reports = reports


def factories(*, data_dir: Path, instance: str, network: Callable[[], PodNetwork]) -> dict[str, Factory]:
    """How each rung is made. `network` is called only for rungs that have a pod network."""
    return {
        "namespace": lambda: NamespaceRuntime(data_dir, instance, network()),
        "process": lambda: ProcessRuntime(data_dir, instance),
    }


async def choose_runtime(
    wanted: str, rungs: dict[str, Factory], *, probe_all: bool = False
) -> tuple[SandboxRuntime, list[RungReport]]:
    """The first rung that boots a sandbox, started; and what was found out about each one that was tried.

    `wanted` is `auto` or the name of one rung, which then must work. With `probe_all` (`nodeless doctor`) the
    rungs after the chosen one are tried, too. Raises ValueError for an unknown rung, NoSandbox.
    """
    if wanted != AUTO and wanted not in rungs:
        raise ValueError(f"sandbox {wanted!r}: must be one of {', '.join((AUTO, *rungs))}")
    chosen: SandboxRuntime | None = None
    reports: list[RungReport] = []
    for name, factory in rungs.items():
        eligible = wanted in (AUTO, name)
        if not probe_all and (chosen is not None or not eligible):
            continue
        runtime = factory()
        report = await runtime.prove()
        reports.append(report)
        if report.works and eligible and chosen is None:
            chosen = runtime
        elif report.works:
            await runtime.stop()
    if chosen is None:
        tried = "; ".join(f"{report.rung}: {report.why}" for report in reports if wanted in (AUTO, report.rung))
        raise NoSandbox(f"no sandbox works on this machine ({tried})", reports)
    return chosen, reports


def describe(reports: Sequence[RungReport], *, chosen: str) -> str:
    """The sandbox section of `nodeless doctor`, plain text."""
    lines: list[str] = []
    for report in reports:
        mark = "works" if report.works else "no"
        lines.append(f"{report.rung:<10} {mark:<6}{'(used) ' if report.rung == chosen else ''}{report.why}")
        if report.works:
            lines.append(f"{'':17}isolates: {', '.join(report.isolates) or 'nothing'}")
        lines += [f"{'':17}reduced: {note}" for note in report.reduced]
    return "\n".join(lines)
