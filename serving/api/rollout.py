"""State of gradual rollouts, as a Route's `status.annotations` keep it: which revisions share a target, and when
the next step is due.

The form is Knative's annotation `networking.internal.knative.dev/rollout`. A target is a pair of configuration and
tag (empty = the Route's own host); its revisions are listed from the oldest to the newest, and their percentages
sum to the target's. Times are Unix nanoseconds. There is no state while nothing is rolled out.
"""

from __future__ import annotations

from typing import Final

import msgspec

ROLLOUT_ANNOTATION: Final = "networking.internal.knative.dev/rollout"


class RevisionShare(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """`percent` of the whole Route's traffic, 0..100."""

    revision_name: str
    percent: int


class StepParams(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """`step_duration` is 0 until the gateways serve the first percent; then it is known how long a step takes."""

    start_time: int = msgspec.field(default=0, name="starttime")
    next_step_time: int = 0
    step_duration: int = 0
    step_size: int = 0


class TargetRollout(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    configuration_name: str
    tag: str = ""
    percent: int
    revisions: tuple[RevisionShare, ...] = ()
    step_params: StepParams = StepParams()

    @property
    def done(self) -> bool:
        return len(self.revisions) < 2


class Rollout(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All targets, sorted by tag and configuration."""

    configurations: tuple[TargetRollout, ...] = ()

    @property
    def done(self) -> bool:
        return all(target.done for target in self.configurations)

    def of(self, configuration: str, tag: str) -> TargetRollout | None:
        """The rollout of one target."""
        wanted = (configuration, tag)
        return next((one for one in self.configurations if (one.configuration_name, one.tag) == wanted), None)

    def of_tag(self, tag: str) -> tuple[TargetRollout, ...]:
        return tuple(one for one in self.configurations if one.tag == tag)

    def next_step(self) -> int:
        """When the next step is due; 0 = none is scheduled."""
        times = [one.step_params.next_step_time for one in self.configurations if not one.done]
        return min((time for time in times if time > 0), default=0)


def read_rollout(annotations: dict[str, str]) -> Rollout | None:
    """The state that `status.annotations` hold, or None when there is none or it makes no sense."""
    text = annotations.get(ROLLOUT_ANNOTATION)
    if not text:
        return None
    try:
        rollout = msgspec.json.decode(text, type=Rollout)
    except msgspec.DecodeError:
        return None
    return rollout if all(_is_sound(target) for target in rollout.configurations) else None


def write_rollout(rollout: Rollout) -> str:
    return msgspec.json.encode(rollout).decode()


def _is_sound(target: TargetRollout) -> bool:
    shares = [revision.percent for revision in target.revisions]
    return (
        target.percent <= 100
        and 0 <= target.step_params.step_size <= target.percent
        and all(share >= 0 for share in shares)
        and sum(shares) == target.percent
    )
