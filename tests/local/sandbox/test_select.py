"""Which rung is taken, and what is reported."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.local.network.service import PodNetwork
from serving.local.sandbox import select
from serving.local.sandbox.process import ProcessRuntime
from serving.local.sandbox.protocol import RungReport
from tests.local.sandbox import support


class _Fake(ProcessRuntime):
    """A rung that says whether it works."""

    def __init__(self, directory: Path, rung: str, *, works: bool, stopped: list[str]) -> None:
        super().__init__(directory, support.instance())
        self.rung = rung
        self._works = works
        self._stopped = stopped

    async def prove(self) -> RungReport:
        return RungReport(rung=self.rung, works=self._works, why="because")

    async def stop(self) -> None:
        self._stopped.append(self.rung)


def _rungs(directory: Path, stopped: list[str], **works: bool) -> dict[str, select.Factory]:
    def factory(rung: str) -> select.Factory:
        return lambda: _Fake(directory, rung, works=works[rung], stopped=stopped)

    return {rung: factory(rung) for rung in works}


@pytest.mark.parametrize(
    ("wanted", "works", "chosen", "tried"),
    [
        ("auto", {"a": True, "b": True}, "a", ["a"]),
        ("auto", {"a": False, "b": True}, "b", ["a", "b"]),
        ("b", {"a": True, "b": True}, "b", ["b"]),
    ],
)
async def test_choice(tmp_path: Path, wanted: str, works: dict[str, bool], chosen: str, tried: list[str]) -> None:
    stopped: list[str] = []
    runtime, reports = await select.choose_runtime(wanted, _rungs(tmp_path, stopped, **works))
    assert runtime.rung == chosen
    assert [report.rung for report in reports] == tried
    assert stopped == []


async def test_doctor_tries_all_and_stops_the_others(tmp_path: Path) -> None:
    stopped: list[str] = []
    rungs = _rungs(tmp_path, stopped, a=True, b=True, c=False)
    runtime, reports = await select.choose_runtime("auto", rungs, probe_all=True)
    assert (runtime.rung, stopped) == ("a", ["b"])
    text = select.describe(reports, chosen=runtime.rung)
    assert "a          works (used) because" in text
    assert "c          no    because" in text


async def test_what_was_asked_for_must_work(tmp_path: Path) -> None:
    with pytest.raises(select.NoSandbox, match=r"no sandbox works on this machine \(a: because\)") as caught:
        await select.choose_runtime("a", _rungs(tmp_path, [], a=False, b=True))
    assert [report.rung for report in caught.value.reports] == ["a"]
    with pytest.raises(ValueError, match="sandbox 'vm': must be one of auto, a, b"):
        await select.choose_runtime("vm", _rungs(tmp_path, [], a=False, b=True))


async def test_the_real_ladder(tmp_path: Path) -> None:
    instance = support.instance()
    rungs = select.factories(
        data_dir=tmp_path, instance=instance, network=lambda: PodNetwork(data_dir=tmp_path, instance=instance)
    )
    assert tuple(rungs) == select.RUNGS
    runtime, reports = await select.choose_runtime("auto", rungs)
    assert runtime.rung == ("namespace" if reports[0].works else "process")
    await runtime.stop()
    assert list((tmp_path / "sandboxes").iterdir()) == []
