"""Bad objects through the API server and the webhook: refused with the code and the very text of a real cluster.

recorded.jsonl was made with kube-apiserver 1.36, the definitions of Knative Serving and Knative's own webhook.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.bad_input.asking import Asker, Outcome, load
from tests.bad_input.cases import CREATE, UPDATE, cases, config_map_cases
from tests.bad_input.stack import embedded_stack
from tests.differential.runner import session


async def outcomes(client: Any, configure: Any) -> dict[str, Outcome]:
    """Of all cases."""
    asker = Asker(client, configure)
    await asker.prepare()
    found = await asker.all(cases())
    for case in config_map_cases():
        for on in (CREATE, UPDATE):
            name = f"{on}: {case['config']} {json.dumps(case['data'])}"
            found[name] = await asker.config_map(case["config"], case["data"], update=on == UPDATE)
    return found


def differences(found: dict[str, Outcome]) -> str:
    recorded = load()
    assert found.keys() == recorded.keys()
    return "\n".join(
        f"{case}\n    real: {recorded[case]}\n    ours: {outcome}"
        for case, outcome in found.items()
        if outcome != recorded[case]
    )


async def test_bad_objects_are_refused_as_by_a_real_cluster(tmp_path: Path) -> None:
    async with (
        embedded_stack(tmp_path) as (server, configure),
        session("http://embedded", token=server.token, socket=str(server.socket)) as client,
    ):
        found = differences(await outcomes(client, configure))
    assert not found, found


def test_the_table_is_large() -> None:
    refused = [case for case, outcome in load().items() if outcome.code >= 400]
    for on in (CREATE, UPDATE):
        assert sum(case.startswith(on) for case in refused) >= 150
