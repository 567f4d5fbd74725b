"""Reading a run of upstream's suite, and the page made of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conformance import report
from tests.conformance.binaries import KN, SUITE, TEST_PACKAGES, image_programs
from tests.conformance.results import Collector, SuiteResult


def collect(*events: tuple[str, str] | tuple[str, str, str]) -> SuiteResult:
    collector = Collector("api/v1")
    for action, test, *output in events:
        body = {"Time": "2026-01-01T00:00:00Z", "Action": action, "Package": "api/v1", "Elapsed": 1.5}
        collector.feed(json.dumps(body | {"Test": test, "Output": "".join(output)}).encode())
    return collector.finish()


def test_a_run_in_which_everything_passed_is_perfect() -> None:
    result = collect(
        ("start", ""), ("run", "TestA"), ("output", "TestA", "fine\n"), ("pass", "TestA"), ("pass", ""),
    )  # fmt: skip
    assert result.perfect
    assert [(test.name, test.outcome, test.output) for test in result.tests] == [("TestA", "pass", "")]
    assert report.summary(result) == "api/v1: 1 passed, 0 failed, 0 skipped in 2 s"


def test_a_failure_keeps_what_was_said() -> None:
    result = collect(
        ("run", "TestA"), ("run", "TestA/x"), ("output", "TestA/x", "bad\n"),
        ("fail", "TestA/x"), ("fail", "TestA"), ("fail", ""),
    )  # fmt: skip
    assert not result.perfect
    assert (result.tests[0].notes, result.tests[0].output, result.tests[0].subtests) == (["x: fail"], "bad\n", 1)


def test_a_skipped_subtest_is_not_perfect() -> None:
    result = collect(("run", "TestA"), ("run", "TestA/x"), ("skip", "TestA/x"), ("pass", "TestA"), ("pass", ""))
    assert not result.perfect
    assert result.tests[0].notes == ["x: skip"]


@pytest.mark.parametrize(
    "events",
    [
        pytest.param([("run", "TestA"), ("fail", "")], id="a test that never ended"),
        pytest.param([("run", "TestA"), ("pass", "TestA")], id="a binary that died"),
        pytest.param([("pass", "")], id="nothing ran"),
    ],
)
def test_what_is_not_a_whole_run_is_not_perfect(events: list[tuple[str, str]]) -> None:
    assert not collect(*events).perfect


def test_a_report_replaces_only_its_target(tmp_path: Path) -> None:
    path = tmp_path / "conformance.md"
    path.write_text("head\n<!-- begin embedded -->\nold\n<!-- end embedded -->\ntail\n")
    run = report.Run(
        target="embedded", server="the server", sandbox="namespace", suite_version="suite v1", machine="2 CPUs"
    )
    result = collect(("run", "TestA"), ("pass", "TestA"), ("pass", ""))
    report.update(path, run, [result], today="2026-01-01")
    text = path.read_text()
    assert text.startswith("head\n<!-- begin embedded -->\n## Embedded API server\n")
    assert text.endswith("<!-- end embedded -->\ntail\n")
    assert "old" not in text
    assert "| TestA | pass |  | 1.5 |" in text
    report.update(path, run, [result], today="2026-01-01")
    assert path.read_text() == text


def test_a_page_without_the_section_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "conformance.md"
    path.write_text("nothing\n")
    run = report.Run(target="embedded", server="", sandbox="", suite_version="", machine="")
    with pytest.raises(ValueError, match="no section between <!-- begin embedded -->"):
        report.update(path, run, [])


def test_the_modules_pin_upstream() -> None:
    assert SUITE.version().startswith("v0.")
    assert set(KN.tools()) == {"kn"}
    assert {"helloworld", "runtime", "servingcontainer", "sidecarcontainer"} <= set(image_programs())
    assert all(package.startswith(SUITE.pinned) for package in TEST_PACKAGES.values())
