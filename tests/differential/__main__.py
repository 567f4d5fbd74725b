"""Compares what a server answers with what a real one answered when it was recorded, or records that:

python -m tests.differential --embedded [SCENARIO ...]
python -m tests.differential --kubeconfig FILE [--record] [SCENARIO ...]
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from tests.differential import recorded
from tests.differential.compare import Difference, compare, load_exceptions, unexplained
from tests.differential.live import from_kubeconfig
from tests.differential.model import Scenario
from tests.differential.normalise import normalise
from tests.differential.runner import run, session
from tests.differential.scenarios.everything import SCENARIOS
from tests.local.apiserver.harness import running_apiserver


async def ask(scenarios: list[Scenario], *, kubeconfig: Path | None, record: bool) -> list[Difference]:
    """What the server answers otherwise than recorded; nothing when it is recorded anew."""
    found: list[Difference] = []
    async with embedded() if kubeconfig is None else from_kubeconfig(kubeconfig) as client:
        for scenario in scenarios:
            namespace = f"diff-{secrets.token_hex(3)}"
            answers = await run(scenario, client, namespace=namespace)
            answers = normalise(answers, namespace=namespace, ownership=scenario.ownership)
            if record:
                recorded.save(scenario.name, answers)
            else:
                found += compare(scenario.name, recorded.load(scenario.name), answers)
    return found


@asynccontextmanager
async def embedded() -> AsyncIterator[aiohttp.ClientSession]:
    with tempfile.TemporaryDirectory() as directory:
        async with (
            running_apiserver(Path(directory)) as server,
            session("http://embedded", token=server.token, socket=str(server.socket)) as client,
        ):
            yield client


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.differential")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--kubeconfig", type=Path, help="of a real API server; an administrator's")
    which.add_argument("--embedded", action="store_true", help="our own, without the listed exceptions")
    parser.add_argument("--record", action="store_true", help="write tests/differential/recorded")
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help="default: all")
    options = parser.parse_args()
    chosen = [each for each in SCENARIOS if not options.scenarios or each.name in options.scenarios]
    if options.record and options.embedded:
        parser.error("only a real API server's answers are recorded")
    found = asyncio.run(ask(chosen, kubeconfig=options.kubeconfig, record=options.record))
    if options.embedded:
        found = unexplained(found, load_exceptions())
    for difference in found:
        sys.stdout.write(f"{difference}\n")
    steps = sum(len(scenario.steps) for scenario in chosen)
    sys.stdout.write(f"{len(chosen)} scenarios, {steps} requests, {len(found)} differences\n")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
