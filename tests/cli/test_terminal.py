"""What people and programs read: ages, tables, JSON, charts, time budgets."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from serving.cli.demo import stages_of
from serving.cli.demo_screen import Screen, level, sampled
from serving.cli.terminal import age, console, print_json, table


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"), (59, "59s"), (119, "119s"), (120, "2m"), (3599, "59m"), (7199, "119m"), (7200, "2h"),
        (86_400, "24h"), (172_800, "2d"), (-5, "0s"),
    ],
)  # fmt: skip
def test_age(seconds: int, text: str) -> None:
    then = datetime.now(UTC) - timedelta(seconds=seconds, milliseconds=100)
    assert age(then.isoformat(timespec="milliseconds").replace("+00:00", "Z")) == text


def test_no_age_of_no_time() -> None:
    assert age(None) == "-"


def test_long_names_are_not_cut(capsys: pytest.CaptureFixture[str]) -> None:
    console().print(table(("NAME", "READY"), [("x" * 120, "True")]))
    assert "x" * 120 + "  True" in capsys.readouterr().out


def test_json_is_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"a": [1, 2]})
    assert json.loads(capsys.readouterr().out) == {"a": [1, 2]}


@pytest.mark.parametrize(
    ("header", "stages"),
    [
        ("", []),
        ("queue;dur=1.5, boot;dur=20, total;dur=21.5", [("queue", 1.5), ("boot", 20.0), ("total", 21.5)]),
        ('cache;desc="Cache Read";dur=23.2', [("cache", 23.2)]),
        ("miss", []),
    ],
)
def test_server_timing(header: str, stages: list[tuple[str, float]]) -> None:
    assert stages_of(header) == stages


@pytest.mark.parametrize(
    ("count", "most", "bar"), [(0, 12, " "), (1, 12, "▁"), (6, 12, "▄"), (12, 12, "█"), (1, 1, "█"), (0, 0, " ")]
)
def test_level(count: int, most: int, bar: str) -> None:
    assert level(count, most) == bar


def test_chart_shows_the_most_pods_of_each_span() -> None:
    changes = [(0.0, 1, 1), (2.0, 0, 0), (4.0, 1, 12), (4.5, 12, 12), (8.0, 0, 0)]
    assert sampled(changes, until=10.0, columns=5) == [1, 1, 12, 12, 12]
    assert sampled(changes, until=10.0, columns=10) == [1, 1, 1, 0, 12, 12, 12, 12, 12, 0]


def test_a_single_change_fills_the_chart() -> None:
    assert sampled([(5.0, 2, 2)], until=5.0, columns=3) == [2, 2, 2]


def test_plain_screen_prints_each_outcome_once(capsys: pytest.CaptureFixture[str]) -> None:
    with Screen(plain=True) as screen:
        screen.step("start")("sandbox: process")
        screen.note("not namespace: no root [really]")
        screen.replicas(1, 1)
        screen.replicas(1, 1)
        screen.budget([("queue", 1.26), ("total", 1.26)])
    assert capsys.readouterr().out.splitlines() == [
        "start: sandbox: process",
        "  note: not namespace: no root [really]",
        "  pods 1 ready, 1 wanted",
        "  of which (ms): queue 1.3  total 1.3",
    ]


def test_picture_of_the_demo(tmp_path: Path) -> None:
    path = tmp_path / "demo.svg"
    screen = Screen(plain=True)
    screen.step("deploy")("Ready")
    screen.budget([("boot", 5.0)])
    screen.replicas(3, 3)
    screen.save(path, command="scripts/demo", after="\nThe service")
    text = path.read_text()
    assert text.startswith("<svg")
    assert "scripts/demo" in text
    assert "font-face" not in text
