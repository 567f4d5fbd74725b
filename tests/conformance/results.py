"""What `go tool test2json` tells of a test binary's run. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

Outcome = Literal["pass", "fail", "skip"]


class Event(msgspec.Struct, rename="pascal"):
    action: str
    test: str = ""
    output: str = ""
    elapsed: float = 0.0


class TestResult(msgspec.Struct):
    """One test function. A subtest that was skipped or failed is named in `notes`."""

    name: str
    outcome: Outcome
    seconds: float
    subtests: int = 0
    notes: list[str] = []
    output: str = ""
    """What it said, if it did not pass."""


class SuiteResult(msgspec.Struct):
    suite: str
    tests: list[TestResult]
    seconds: float
    ended: bool
    """False when the binary died before it had said how it went."""

    def count(self, outcome: Outcome) -> int:
        return sum(test.outcome == outcome for test in self.tests)

    @property
    def perfect(self) -> bool:
        """Everything ran and passed; a skipped subtest counts as not run."""
        return self.ended and bool(self.tests) and all(t.outcome == "pass" and not t.notes for t in self.tests)


class Collector:
    """Takes the lines of a run as they come."""

    def __init__(self, suite: str) -> None:
        self._suite = suite
        self._started: list[str] = []
        self._ends: dict[str, Event] = {}
        self._output: dict[str, list[str]] = {}
        self._decode = msgspec.json.Decoder(Event)
        self._binary: Event | None = None

    def feed(self, line: bytes) -> TestResult | None:
        """A test function's result when this line ends it. Raises DecodeError for what is no event."""
        event = self._decode.decode(line)
        if event.action == "output":
            self._output.setdefault(event.test, []).append(event.output)
        elif event.action == "run":
            self._started.append(event.test)
        elif event.action in ("pass", "fail", "skip"):
            if not event.test:
                self._binary = event
                return None
            self._ends[event.test] = event
            if "/" not in event.test:
                return self._result(event.test)
        return None

    def finish(self) -> SuiteResult:
        names = [name for name in self._started if "/" not in name]
        return SuiteResult(
            suite=self._suite,
            tests=[self._result(name) for name in sorted(names)],
            seconds=self._binary.elapsed if self._binary else 0.0,
            ended=self._binary is not None and all(name in self._ends for name in self._started),
        )

    def stray_output(self) -> str:
        """What was printed outside of any test."""
        return "".join(self._output.get("", ()))

    def _result(self, name: str) -> TestResult:
        children = [child for child in self._started if child.startswith(name + "/")]
        outcome = self._outcome(name)
        notes = [f"{child.removeprefix(name)[1:]}: {self._outcome(child)}" for child in self._bad(children)]
        output = "" if outcome == "pass" and not notes else self._text([name, *children])
        # A parent's own time leaves out that of its parallel subtests.
        ends = [self._ends[one] for one in (name, *children) if one in self._ends]
        return TestResult(
            name=name,
            outcome=outcome,
            seconds=max((end.elapsed for end in ends), default=0.0),
            subtests=len(children),
            notes=notes,
            output=output,
        )

    def _bad(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if self._outcome(name) != "pass"]

    def _text(self, names: Iterable[str]) -> str:
        return "".join("".join(self._output.get(name, ())) for name in names)

    def _outcome(self, name: str) -> Outcome:
        """A test that started and never ended failed."""
        end = self._ends.get(name)
        if end is None:
            return "fail"
        return "pass" if end.action == "pass" else "skip" if end.action == "skip" else "fail"
