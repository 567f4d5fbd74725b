"""Levels are sent soon, once for a burst, and not before they can be computed."""

from __future__ import annotations

import asyncio

from serving.api.reports import ColdRevisions, GatewayMessage, Programmed
from serving.gateway.levels import LONGEST_SECONDS, Levels


async def test_a_burst_is_one_message_of_each_level() -> None:
    sent: list[GatewayMessage] = []
    done = asyncio.Event()

    def programmed() -> Programmed:
        return Programmed({"default/hello": "h"})

    def cold() -> ColdRevisions:
        return ColdRevisions(frozenset())

    def send(message: GatewayMessage) -> None:
        sent.append(message)
        done.set()

    levels = Levels(read={"programmed": programmed, "cold": cold}, send=send)
    levels.changed("programmed")
    await asyncio.sleep(2 * LONGEST_SECONDS)
    assert sent == [], "nothing is known yet"
    levels.open()
    await asyncio.wait_for(done.wait(), 5)
    assert sent == [programmed(), cold()]
    done.clear()
    for _ in range(100):
        levels.changed("programmed")
    await asyncio.wait_for(done.wait(), 5)
    assert sent[2:] == [programmed()]
    done.clear()
    levels.changed("cold")
    levels.changed("programmed", "cold")
    await asyncio.wait_for(done.wait(), 5)
    assert sent[3:] == [programmed(), cold()]
