"""Users of one service, in steps. Started by `loadtests.step_load`; alone:

    NODELESS_STEPS=50:30,200:30 NODELESS_HOST=hello.default.localhost \\
        locust --headless -f loadtests/locustfile.py --host http://127.0.0.1:8080

Each user asks for a page that takes `NODELESS_SERVICE_MS` and thinks for `NODELESS_THINK_MS` on average, with a
connection of its own. The pauses are random: users in step with one another, and with the reports of each second,
would be seen all at once or not at all. `NODELESS_BEGAN` names a file that gets the Unix time at which the load
began.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from locust import FastHttpUser, LoadTestShape, between, events, task

from loadtests.kpa_expectation import parse_steps

_SERVICE_MS = int(os.environ.get("NODELESS_SERVICE_MS", "500"))
_THINK_MS = int(os.environ.get("NODELESS_THINK_MS", "500"))
_HOST = os.environ.get("NODELESS_HOST", "hello.default.localhost")


@events.test_start.add_listener  # type: ignore[untyped-decorator]
def note_begin(**_: Any) -> None:
    if "NODELESS_BEGAN" in os.environ:
        Path(os.environ["NODELESS_BEGAN"]).write_text(repr(time.time()))


class Visitor(FastHttpUser):
    wait_time = between(0, 2 * _THINK_MS / 1000)
    connection_timeout = 60.0
    network_timeout = 60.0

    @task
    def page(self) -> None:
        self.client.get(f"/sleep?ms={_SERVICE_MS}", name="/sleep", headers={"Host": _HOST})


class Steps(LoadTestShape):
    """All users of a step come, or go, at once."""

    steps = parse_steps(os.environ.get("NODELESS_STEPS", "50:30,200:30"))

    def tick(self) -> tuple[int, float] | None:
        left = float(self.get_run_time())  # type: ignore[no-untyped-call]
        for step in self.steps:
            left -= step.seconds
            if left < 0:
                return step.users, 1000.0
        return None
