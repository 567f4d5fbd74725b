"""All scenarios, in the order in which they are run."""

from __future__ import annotations

from typing import Final

from tests.differential.model import Scenario
from tests.differential.scenarios import (
    access,
    applying,
    core,
    custom,
    definitions,
    deleting,
    documents,
    errors,
    events,
    fields,
    lists,
    patches,
    pods,
    representations,
    watches,
    writes,
)

SCENARIOS: Final[tuple[Scenario, ...]] = (
    *writes.SCENARIOS,
    *patches.SCENARIOS,
    *applying.SCENARIOS,
    *lists.SCENARIOS,
    *watches.SCENARIOS,
    *deleting.SCENARIOS,
    *custom.SCENARIOS,
    *definitions.SCENARIOS,
    *fields.SCENARIOS,
    *errors.SCENARIOS,
    *representations.SCENARIOS,
    *documents.SCENARIOS,
    *core.SCENARIOS,
    *pods.SCENARIOS,
    *events.SCENARIOS,
    *access.SCENARIOS,
)
