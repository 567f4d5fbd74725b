"""From zero to the first byte: a static and a Python hello, split by stage.

    python -m loadtests.cold_start [--rounds 30] [--images hello-static,hello-python]

Each round waits until the Revision wants no pod and its pods are gone, then sends one request over a connection
that is open already, and reads the stages from `Server-Timing`. *Total* is measured at the client. Besides the
stages: *Check received → pod create sent* (queue and decide: from Envoy's start of the request to the moment
before the create call) and *probe answered → first byte* (what of the client's total comes after the last probe:
release, connection to the fresh pod, its answer; the few tenths from the client to Envoy are in it too).
"""

from __future__ import annotations

from loadtests.common import CONSOLE, Answer, Stack, connect, parser_of, stack, times_row, times_table
from serving.cli.connect import run_until_signal

TOTAL_GOALS = {"hello-static": "≤ 120 p50", "hello-python": "≤ 400 p50"}
_STAGES = ("queue", "decide", "create", "schedule", "boot", "image", "app", "probe", "release")


async def wake(up: Stack, name: str) -> Answer:
    await up.at_zero(name)
    async with connect(up.port) as connection:
        answer = await connection.get(up.host(name), timing=True)
    if answer.status != 200:
        raise SystemExit(f"{name}: status {answer.status}")
    return answer


def report(image: str, sandbox: str, answers: list[Answer]) -> None:
    table = times_table(f"{image} from zero, {sandbox} sandbox")
    times_row(table, "total at the client", [answer.seconds for answer in answers], TOTAL_GOALS.get(image, ""))
    budgets = [answer.stages() for answer in answers]
    for stage in _STAGES:
        times_row(table, f"  {stage}", [budget.get(stage, 0.0) for budget in budgets])
    sent = [budget.get("queue", 0.0) + budget.get("decide", 0.0) for budget in budgets]
    times_row(table, "Check received → pod create sent", sent, "≤ 10 p99")
    after = [
        answer.seconds - budget["total"] + budget.get("release", 0.0)
        for answer, budget in zip(answers, budgets, strict=True)
    ]
    times_row(table, "probe answered → first byte", after, "≤ 2 p50, ≤ 10 p99")
    CONSOLE.print(table)


async def bench(images: list[str], count: int) -> None:
    async with stack() as up:
        await up.build(*images)
        answers: dict[str, list[Answer]] = {image: [] for image in images}
        for image in images:
            await up.deploy(image, image)
            await wake(up, image)  # not counted: unpacks the image
        for _ in range(count):
            for image in images:  # in turns: one goes to zero while the other wakes
                answers[image].append(await wake(up, image))
        for image in images:
            report(image, up.state.sandbox, answers[image])


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--images", default="hello-static,hello-python")
    options = parser.parse_args()
    run_until_signal(bench(options.images.split(","), options.rounds))


if __name__ == "__main__":
    main()
