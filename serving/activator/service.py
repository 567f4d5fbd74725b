"""The activator of a gateway agent: answers Envoy's ext_authz Checks when a pod can take the request. Shell.

A request without a ready pod reaches Envoy's *activator listener*; its ext_authz filter asks `Check`, and the
RPC stays open for as long as the request is held. The OK names the pod and Envoy connects to exactly that one.
No byte of a body ever comes here. The decisions are in `throttle`, `readiness`, `probe_schedule` and `timing`;
this module owns the clock, the timers, the gRPC handlers and the callbacks.

What the listener's configuration must say for that (all of it is relied upon):

- endpoint of the activator in EDS: `envoy_internal_address {endpoint_id: <namespace/revision>}`.
- filter `envoy.filters.http.ext_authz` under exactly this name; `grpc_service` to the agent's Unix socket with
  `timeout` above the longest hold and a `retry_policy` (unavailable, cancelled, reset, connect-failure …),
  whose `retry_back_off.max_interval` is above the longest hold too: Envoy takes it for the time-out of each
  try, and asks every held request again that often; `allowed_headers` with at least x-request-id,
  nodeless-server-timing and traceparent.
- ORIGINAL_DST cluster with `metadata_key {key: envoy.filters.http.ext_authz, path: [{key: pod}]}`.
- gRPC access log (HTTP, no filter, `buffer_size_bytes: 1`) to the same socket; from each entry we read
  `common_properties.metadata` (ext_authz: `release`), `.start_time`, `.response_flags`
  (`upstream_connection_failure`), `.intermediate_log_entry` and `request.request_id`.
- a response with flag UF and nothing sent upstream comes back to the outer route as retriable, so that the
  request is held again.
- the outer `per_try_timeout` is not shorter than the revision's hold: we refuse 0.1 s before.

The server should be started once every revision is known (`update`): a Check for an unknown one is 404.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from random import Random

import grpc
from envoy.service.accesslog.v3.als_pb2 import StreamAccessLogsMessage, StreamAccessLogsResponse
from envoy.service.auth.v3.external_auth_pb2 import CheckRequest, CheckResponse

from serving.activator import check, timing
from serving.activator.accesslog import Ended, read_entries
from serving.activator.holds import Effects, Release
from serving.activator.journal import Journal
from serving.activator.ledger import Ledger
from serving.activator.model import PodEndpoint, RevisionConfig
from serving.activator.prober import Prober
from serving.activator.revision import HeldRevision, Waiter
from serving.activator.rpc import handlers
from serving.api.reports import Budget, Decided
from serving.telemetry.budget import BudgetRecorder

TIMER_SLACK_SECONDS = 0.001
"""A timer is not set anew for less."""


class Activator:
    """All held requests of one gateway agent.

    `poke(key, held)` is called in the loop turn in which the first request of a revision without a ready pod
    begins to wait, and again when its pods vanish while requests wait. `changed(key)` is called when
    `ready(key)` is different from before, or when the last request of ours on a draining pod ended. `budget`
    gets the record of each wake-up. All are called in the loop and must not block. `now` is Unix time.

    With `state_dir` the ledger of releases is kept there and survives the agent: raises LedgerBusy when
    another agent uses it.
    """

    def __init__(
        self,
        *,
        poke: Callable[[str, int], None],
        changed: Callable[[str], None],
        now: Callable[[], float] = time.time,
        budget: Callable[[Budget], None] | None = None,
        recorder: BudgetRecorder | None = None,
        state_dir: Path | None = None,
        random: Random | None = None,
    ) -> None:
        self._poke = poke
        self._changed = changed
        self._now = now
        self._budget = budget
        self._recorder = recorder or BudgetRecorder()
        self._random = random or Random()  # noqa: S311 - balancing, not secrets
        self._ids: Iterable[int] = itertools.count(secrets.randbits(31) << 32)
        self._revisions: dict[str, HeldRevision] = {}
        self._revision_of_pod: dict[str, str] = {}
        self._waiters: dict[str, Waiter] = {}
        self._timers: dict[HeldRevision, asyncio.TimerHandle] = {}
        self._prober = Prober(told=self._probed, waited_for=self._waited_for)
        self._ledger = Ledger(Journal(state_dir) if state_dir is not None else None, now=self._now())

    async def run(self) -> None:
        """Probe pods until cancelled."""
        await self._prober.run()

    def close(self) -> None:
        """Let go of the ledger's file, after the server has stopped. What it says stays."""
        self._ledger.close()

    def add_to_server(self, server: grpc.aio.Server) -> None:
        """Register envoy.service.auth.v3.Authorization and envoy.service.accesslog.v3.AccessLogService."""
        server.add_generic_rpc_handlers(handlers(check=self._check, access_logs=self._stream_access_logs))

    # What the gateway tells

    def update(self, revision: RevisionConfig, pods: Sequence[PodEndpoint]) -> None:
        """The whole truth about one revision and its pods; whatever is not in `pods` is gone.

        Leave a pod's address empty while another live pod claims it too. For a revision with a startup probe
        pass an exec `readiness`: its pods count as ready when Kubernetes says so.
        """
        now = self._now()
        held = self._revisions.get(revision.key)
        if held is not None and held.throttle.config.uid != revision.uid:
            self.forget(revision.key)
            held = None
        if held is None:
            held = self._revisions[revision.key] = HeldRevision(revision, random=self._random, ids=self._ids)
            held.throttle.restore(self._ledger.restore(revision.key))
        before, gone = held.ready(), set(held.pods)
        lost = held.set_pods(revision, pods, now)
        for uid in lost:
            self._prober.drop(uid)
        for uid in gone - held.pods.keys():
            self._revision_of_pod.pop(uid, None)
        for uid in held.pods:
            self._revision_of_pod[uid] = revision.key
        self._apply(held, held.throttle.configure(revision, now), now)
        self._apply(held, held.throttle.set_pods(held.slots(), now), now)
        self._probe_all(held)
        if lost:
            held.poked = False
        self._consider_poke(held, now)
        self._report(held, before)

    def forget(self, key: str) -> None:
        """The revision is gone: those who wait for it get 404. Unknown is nothing."""
        revision = self._revisions.pop(key, None)
        if revision is None:
            return
        pods, revision.pods = revision.pods, {}
        for uid in pods:
            self._prober.drop(uid)
            self._revision_of_pod.pop(uid, None)
        self._apply(revision, revision.throttle.close(), self._now())

    def note_decided(self, message: Decided) -> None:
        """The controller answered a poke: completes the budget of the wake-up that is under way."""
        revision = self._revisions.get(message.revision)
        if revision is not None:
            revision.decided(message)

    def reconcile_load(self, pod_uid: str, in_progress: int) -> None:
        """At most `in_progress` requests that we released run on the pod: drops lost ends, oldest first.
        Releases of the last five seconds are left alone."""
        revision = self._revisions.get(self._revision_of_pod.get(pod_uid, ""))
        if revision is not None:
            now = self._now()
            self._apply(revision, revision.throttle.reconcile_pod(pod_uid, in_progress, now), now)

    def reconcile_revision(self, key: str, in_progress: int, at: float) -> None:
        """As `reconcile_load`, from Envoy's load report for the activator endpoint of the revision's cluster:
        `in_progress` counts held and released requests together. `at`: Unix time of the sample or earlier."""
        revision = self._revisions.get(key)
        if revision is not None:
            now = self._now()
            self._apply(revision, revision.throttle.reconcile(in_progress, at, now), now)

    # What the gateway asks

    def ready(self, key: str) -> frozenset[str]:
        """Uids of pods that answered a probe or are Ready, are not terminating, and did not fail since.
        Draining pods stay in it."""
        revision = self._revisions.get(key)
        return revision.ready() if revision else frozenset()

    def held(self, key: str) -> int:
        """Requests of the revision that wait now."""
        revision = self._revisions.get(key)
        return revision.throttle.held if revision else 0

    def in_flight(self, pod_uid: str) -> int:
        """Requests released to the pod whose end the access log has not reported. After a restart those of
        the former agent count too, as far as they were stored."""
        revision = self._revisions.get(self._revision_of_pod.get(pod_uid, ""))
        if revision is None:
            return self._ledger.restored_on(pod_uid)
        now = self._now()
        self._apply(revision, revision.throttle.tick(now), now)
        return revision.throttle.in_flight(pod_uid)

    # gRPC

    async def _check(
        self, request: CheckRequest, context: grpc.aio.ServicerContext[CheckRequest, CheckResponse]
    ) -> CheckResponse:
        now = self._now()
        ask = check.read_check(request, now)
        revision = self._revisions.get(ask.revision)
        if revision is None:
            return check.unknown_revision(ask.revision)
        answer: asyncio.Future[CheckResponse] = asyncio.get_running_loop().create_future()
        waiter = Waiter(ask, cold=not revision.throttle.has_open_pod(), settle=partial(_settle, answer))
        self._hold(revision, waiter, now)
        try:
            return await answer
        except asyncio.CancelledError:
            self._gave_up(revision, waiter)
            raise

    async def _stream_access_logs(
        self,
        messages: AsyncIterator[StreamAccessLogsMessage],
        context: grpc.aio.ServicerContext[StreamAccessLogsMessage, StreamAccessLogsResponse],
    ) -> StreamAccessLogsResponse:
        try:
            async for message in messages:
                for ended in read_entries(message):
                    self._ended(ended)
        finally:
            now = self._now()
            for revision in self._revisions.values():
                revision.throttle.doubt()
                self._schedule(revision, now)
        return StreamAccessLogsResponse()

    # Events

    def _hold(self, revision: HeldRevision, waiter: Waiter, now: float) -> None:
        hold = waiter.ask.hold
        before = self._waiters.get(hold.id)
        self._waiters[hold.id] = waiter
        if before is not None and revision.throttle.is_waiting(hold.id):
            # Envoy asks again and no longer listens to the first RPC; the place in the queue is kept.
            before.settle(check.denied(503, "asked again"))
            return
        self._apply(revision, revision.throttle.hold(hold, now), now)
        self._consider_poke(revision, now)

    def _gave_up(self, revision: HeldRevision, waiter: Waiter) -> None:
        """The RPC was cancelled: the client went away, or Envoy did. A release that was decided in the same
        turn was not sent."""
        now = self._now()
        hold_id = waiter.ask.hold.id
        if waiter.release is not None:
            self._apply(revision, revision.throttle.finished(waiter.release, now), now)
        elif self._waiters.get(hold_id) is waiter:
            del self._waiters[hold_id]
            self._apply(revision, revision.throttle.cancel(hold_id, now), now)

    def _ended(self, ended: Ended) -> None:
        known = self._ledger.find(release_id=ended.release, token=ended.token)
        revision = self._revisions.get(known[0]) if known is not None else None
        if known is None or revision is None:
            return
        release = known[1]
        now = self._now()
        if ended.connect_failed:
            before = revision.ready()
            self._apply(revision, revision.distrust(release.pod, now), now)
            self._probe_all(revision)
            self._report(revision, before)
        effects = revision.throttle.finished(release.id, now, connect_failed=ended.connect_failed)
        self._apply(revision, effects, now)
        self._consider_poke(revision, now)

    def _probed(self, key: str, uid: str, answered: bool) -> None:
        revision = self._revisions.get(key)
        if revision is None:
            return
        now = self._now()
        before = revision.ready()
        effects = revision.probed(uid, answered=answered, now=now)
        self._apply(revision, effects, now)
        self._consider_poke(revision, now)
        if effects.releases:
            # The answers to the Checks are sent in the next turn of the loop; Envoy's endpoints come after them.
            asyncio.get_running_loop().call_soon(self._report, revision, before)
        else:
            self._report(revision, before)

    def _ticked(self, revision: HeldRevision) -> None:
        del self._timers[revision]
        now = self._now()
        self._apply(revision, revision.throttle.tick(now), now)

    # Consequences

    def _apply(self, revision: HeldRevision, effects: Effects, now: float) -> None:
        drained = False
        for release_id in effects.ended:
            ended = self._ledger.remove(release_id)
            drained |= ended is not None and revision.drained(ended.pod)
        for release in effects.releases:
            self._release(revision, release)
        for refusal in effects.refusals:
            waiter = self._waiters.pop(refusal.hold.id, None)
            if waiter is not None:
                waiter.settle(check.refusal(refusal.reason, revision.key))
        if not revision.throttle.held:
            revision.poked = False
        self._schedule(revision, now)
        if drained:
            self._changed(revision.key)

    def _release(self, revision: HeldRevision, release: Release) -> None:
        self._ledger.add(revision.key, release)
        waiter = self._waiters.pop(release.hold.id)
        waiter.release = release.id
        self._recorder.held(release.at - release.hold.started, cold=waiter.cold)
        header = ""
        if waiter.ask.wants_timing or revision.throttle.config.server_timing:
            header = timing.server_timing(revision.budget(release))
        waiter.settle(check.ok(release, server_timing=header))
        if waiter.cold and not revision.recorded:
            revision.recorded = True
            stages = revision.budget(release)
            pod = revision.pods[release.pod].view.endpoint.name
            # In the turn after the one that sends the answer: nobody waits for a record.
            asyncio.get_running_loop().call_soon(partial(self._record, revision, release, waiter, stages, pod))

    def _record(
        self, revision: HeldRevision, release: Release, waiter: Waiter, stages: dict[str, float], pod: str
    ) -> None:
        """The budget of a wake-up: of its first release, once."""
        self._recorder.woken(
            revision=revision.key,
            pod=pod,
            started=release.hold.started,
            stages=stages,
            traceparent=waiter.ask.traceparent,
        )
        if self._budget is not None:
            self._budget(Budget(revision=revision.key, pod=pod, stages=stages))

    def _schedule(self, revision: HeldRevision, now: float) -> None:
        """One timer for each revision with waiting requests, none for the others."""
        at = revision.throttle.next_wakeup() if revision.throttle.held else None
        timer = self._timers.get(revision)
        if timer is None and at is None:
            return
        loop = asyncio.get_running_loop()
        when = None if at is None else loop.time() + max(0.0, at - now)
        if timer is not None:
            if when is not None and timer.when() <= when + TIMER_SLACK_SECONDS:
                return
            timer.cancel()
            del self._timers[revision]
        if when is not None:
            self._timers[revision] = loop.call_at(when, self._ticked, revision)

    def _consider_poke(self, revision: HeldRevision, now: float) -> None:
        if not revision.needs_poke():
            return
        revision.poked = True
        revision.wake, revision.recorded = timing.Wake(poked_at=now), False
        self._poke(revision.key, revision.throttle.held)
        for uid in revision.pods:
            self._prober.hurry(uid)

    def _probe_all(self, revision: HeldRevision) -> None:
        for uid, target in revision.to_probe():
            if target is None:
                self._prober.drop(uid)
            else:
                self._prober.want(uid=uid, key=revision.key, target=target)

    def _report(self, revision: HeldRevision, before: frozenset[str]) -> None:
        if revision.ready() != before:
            self._changed(revision.key)

    def _waited_for(self, key: str) -> bool:
        return self.held(key) > 0


def _settle(answer: asyncio.Future[CheckResponse], response: CheckResponse) -> None:
    if not answer.done():
        answer.set_result(response)
