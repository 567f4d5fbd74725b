"""What `nodeless demo` shows: its steps, the time budget of the cold start, and replicas over time.

In a terminal it is one live picture; without one each outcome is a line.
"""

from __future__ import annotations

import io
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

_WIDTH = 100
_BAR = 40
_VISIBLE_MS = 0.05
_CHART = 64
_WEB_FONT = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)
"""The picture must not load anything; a fixed-width font of the reader's does."""
_LEVELS = "▁▂▃▄▅▆▇█"
_STAGES = ("cyan", "blue", "magenta", "green", "yellow", "red")

Change = tuple[float, int, int]
"""When (monotonic seconds), pods that are ready, pods that are wanted."""


class Screen:
    """Use as a context manager; the last picture stays on the terminal."""

    def __init__(self, *, plain: bool) -> None:
        self._plain = plain
        self._console = Console(highlight=False, soft_wrap=True)
        self._steps: list[tuple[str, str]] = []
        self._budget: list[tuple[str, float]] = []
        self._changes: list[Change] = []
        self._ended: float | None = None
        self._load = ""
        self._spinner = Spinner("dots", style="yellow")
        self._live = Live(
            console=self._console, get_renderable=self._render, refresh_per_second=8, auto_refresh=not plain
        )

    def __enter__(self) -> Screen:
        if not self._plain:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Nothing changes any more; what is printed from now on comes below. Idempotent."""
        if self._ended is None:
            self._ended = time.monotonic()
            if not self._plain:
                self._live.stop()

    def step(self, text: str) -> Callable[[str], None]:
        """Begin a step; call the result with its outcome."""
        number = len(self._steps)
        self._steps.append((text, ""))

        def done(outcome: str) -> None:
            self._steps[number] = (text, outcome)
            self._line(f"{text}: {outcome}")

        return done

    def note(self, text: str) -> None:
        """Something that the reader should know about the step before."""
        self._steps.append(("", text))
        self._line(f"  note: {text}")

    def budget(self, stages: Sequence[tuple[str, float]]) -> None:
        """Stages of a cold start, milliseconds."""
        self._budget = list(stages)
        self._line("  of which (ms): " + "  ".join(f"{name} {took:.1f}" for name, took in stages))

    def replicas(self, ready: int, wanted: int) -> None:
        if not self._changes or self._changes[-1][1:] != (ready, wanted):
            self._changes.append((time.monotonic(), ready, wanted))
            self._line(f"  pods {ready} ready, {wanted} wanted")

    def load(self, text: str) -> None:
        """How the load goes; live only."""
        self._load = text

    def save(self, path: Path, *, command: str, after: str) -> None:
        """The picture as it is now, between a prompt's command and what was printed after it, as SVG."""
        console = Console(
            record=True, width=_WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor",
            highlight=False,
        )  # fmt: skip
        console.print(f"$ {command}", self._render(), Text(after), sep="\n")
        svg = console.export_svg(title="nodeless")
        path.write_text(_WEB_FONT.sub("", svg))

    def _line(self, text: str) -> None:
        if self._plain:
            self._console.print(Text(text))

    def _render(self) -> RenderableType:
        parts: list[RenderableType] = [self._step_rows()]
        if self._changes:
            parts += [Text(), Padding(self._chart(), (0, 0, 0, 2))]
        return Group(*parts)

    def _step_rows(self) -> RenderableType:
        rows: list[RenderableType] = []
        for text, outcome in self._steps:
            grid = Table.grid(padding=(0, 1))
            if not text:
                grid.add_row(" ", Text(outcome, style="dim"))
            elif outcome:
                grid.add_row(Text("✓", style="green"), Text.assemble(text, "  ", (outcome, "bold")))
            else:
                grid.add_row(self._spinner, Text.assemble(text, "  ", (self._load, "dim")))
            rows.append(grid)
            if text == WAKE and outcome:
                rows.append(Padding(self._budget_rows(), (0, 0, 0, 4)))
        return Group(*rows)

    def _budget_rows(self) -> Table:
        grid = Table.grid(padding=(0, 1))
        stages = [(name, took) for name, took in self._budget if name != "total"]
        total = sum(took for _, took in stages) or 1.0
        start = 0.0
        for number, (name, took) in enumerate(stages):
            left, right = round(start / total * _BAR), round((start + took) / total * _BAR)
            width = max(right - left, int(took >= _VISIBLE_MS))
            bar = Text(" " * left) + Text("█" * width, style=_STAGES[number % len(_STAGES)])
            grid.add_row(Text(name, style="dim"), Text(f"{took:6.1f} ms", style="dim"), bar)
            start += took
        return grid

    def _chart(self) -> RenderableType:
        now = self._ended or time.monotonic()
        _, ready, wanted = self._changes[-1]
        counts = sampled(self._changes, until=now, columns=_CHART)
        title = Text.assemble(
            ("pods ", "bold"), (f"{ready} ready", "green"), ", ", (f"{wanted} wanted", "yellow"),
            f", most {max(counts)}",
        )  # fmt: skip
        line = Text("".join(level(count, max(counts)) for count in counts), style="green")
        seconds = f"{now - self._changes[0][0]:.0f} s"
        return Group(title, line, Text(f"0 s{seconds:>{_CHART - 3}}", style="dim"))


WAKE = "first request wakes it"


def sampled(changes: Sequence[Change], *, until: float, columns: int) -> list[int]:
    """Most ready pods in each of `columns` equal spans from the first change until then."""
    start = changes[0][0]
    span = max(until - start, 1e-3) / columns
    counts = []
    current = changes[0][1]
    position = 0
    for column in range(columns):
        most = current
        while position < len(changes) and changes[position][0] < start + (column + 1) * span:
            current = changes[position][1]
            most = max(most, current)
            position += 1
        counts.append(most)
    return counts


def level(count: int, most: int) -> str:
    """One character of the chart; zero is a gap."""
    if count <= 0:
        return " "
    return _LEVELS[min(len(_LEVELS) - 1, (count * len(_LEVELS) - 1) // max(most, 1))]
