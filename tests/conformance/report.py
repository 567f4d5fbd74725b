"""docs/conformance.md: one section for each target, replaced by each whole run on it. Pure but for the file."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from tests.conformance.results import Outcome, SuiteResult, TestResult

_WORDS: Final[tuple[tuple[Outcome, str], ...]] = (("pass", "passed"), ("fail", "failed"), ("skip", "skipped"))
_TITLES: Final = {"embedded": "Embedded API server", "cluster": "Real API server"}


class Run(msgspec.Struct, frozen=True, kw_only=True):
    target: str
    server: str
    sandbox: str
    suite_version: str
    machine: str


def summary(result: SuiteResult) -> str:
    """One line."""
    counts = ", ".join(f"{result.count(outcome)} {word}" for outcome, word in _WORDS)
    end = "" if result.ended else " (the run ended early)"
    return f"{result.suite}: {counts} in {result.seconds:.0f} s{end}"


def update(path: Path, run: Run, results: Sequence[SuiteResult], *, today: str = "") -> None:
    """Replace the section of the run's target; the rest of the file stays."""
    begin, end = (f"<!-- {word} {run.target} -->" for word in ("begin", "end"))
    text = path.read_text()
    head, found, rest = text.partition(begin)
    _, closed, tail = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"{path} has no section between {begin} and {end}")
    today = today or datetime.now(UTC).date().isoformat()
    path.write_text(f"{head}{begin}\n{section(run, results, today=today)}\n{end}{tail}")


def section(run: Run, results: Sequence[SuiteResult], *, today: str) -> str:
    lines = [
        f"## {_TITLES[run.target]}",
        "",
        f"{today} · {run.suite_version} · {run.server} · sandbox `{run.sandbox}` · {run.machine}",
    ]
    for result in results:
        lines += ["", f"### {result.suite}", "", summary(result) + ".", ""]
        lines += ["| test | result | subtests | seconds |", "|---|---|---|---|"]
        lines += [_row(test) for test in result.tests]
    return "\n".join(lines)


def _row(test: TestResult) -> str:
    outcome = "; ".join([test.outcome, *test.notes]).replace("|", "\\|")
    return f"| {test.name} | {outcome} | {test.subtests or ''} | {test.seconds:.1f} |"
