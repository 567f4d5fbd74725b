"""What every part of the controller's shell works with."""

from __future__ import annotations

from collections.abc import Callable

from serving.controller.events import Recorder
from serving.controller.malformed import Malformed
from serving.kube.client import KubeClient


class Shared:
    """`now` gives Unix seconds."""

    def __init__(self, client: KubeClient, *, now: Callable[[], float]) -> None:
        self.client = client
        self.now = now
        self.events = Recorder(client, component="nodeless-controller", now=now)
        self.malformed = Malformed(client, now=now, events=self.events)
