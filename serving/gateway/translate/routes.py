"""Virtual hosts and the route configuration around them.

A split is a list of routes with cumulative fractions: Envoy draws one number per request and compares it with
each, so the shares are exact and every revision keeps its own time-outs, which weighted clusters cannot have.

What may be repeated: a request that reached nobody. `connect-failure`, `refused-stream` and
`reset-before-request` say so themselves; the marker header says it of a release. The marker is added only by
our own activator listener and its value is a secret of this Envoy's boot: neither an application nor a
half-executed request can produce it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from envoy.config.core.v3.base_pb2 import (
    DataSource,
    HeaderValue,
    HeaderValueOption,
    RuntimeFractionalPercent,
)
from envoy.config.route.v3.route_components_pb2 import (
    DirectResponseAction,
    HeaderMatcher,
    RetryPolicy,
    Route,
    RouteAction,
    RouteMatch,
)
from envoy.config.route.v3.route_components_pb2 import VirtualHost as EnvoyVirtualHost
from envoy.config.route.v3.route_pb2 import RouteConfiguration
from envoy.extensions.retry.host.previous_hosts.v3.previous_hosts_pb2 import PreviousHostsPredicate
from envoy.extensions.retry.priority.previous_priorities.v3.previous_priorities_config_pb2 import (
    PreviousPrioritiesConfig,
)
from envoy.type.matcher.v3.string_pb2 import StringMatcher
from envoy.type.v3.percent_pb2 import FractionalPercent
from google.protobuf.wrappers_pb2 import UInt64Value

from serving.api import keys
from serving.gateway.ir import Target, VirtualHost
from serving.gateway.translate import names
from serving.gateway.translate.proto import duration, pack, uint32

UNKNOWN_HOST: Final = "unknown-host"

RETRY_ON: Final = "connect-failure,refused-stream,reset-before-request,retriable-headers"
_RETRIES: Final = 10
RETRY_BUFFER_BYTES: Final = 2 * 1024 * 1024
"""Body that the router keeps for another try. Above what can be read while no try is under way."""
_STRIPPED: Final = (
    keys.HEADER_REVISION,
    keys.HEADER_NAMESPACE,
    keys.HEADER_DEFAULT_ROUTE,
    keys.HEADER_PROXY_REQUEST,
    keys.HEADER_ORIGINAL_HOST,
    keys.HEADER_NETWORK_PROBE,
    "x-envoy-external-address",
)
"""Headers of Knative's own components, which applications never see there either, and one that Envoy adds. Each
costs every request, so there is none that only a component of Knative would misunderstand."""
_FORWARDED: Final = 'for="%DOWNSTREAM_REMOTE_ADDRESS%";host="%REQ(:AUTHORITY)%";proto=%REQ(X-FORWARDED-PROTO)%'


def route_configuration(name: str) -> RouteConfiguration:
    """Everything but the virtual hosts, which are appended one by one (xds/snapshot.py)."""
    return RouteConfiguration(
        name=name,
        ignore_port_in_host_matching=True,
        most_specific_header_mutations_wins=True,
        request_headers_to_remove=_STRIPPED,
        request_headers_to_add=[_header("forwarded", _FORWARDED, HeaderValueOption.ADD_IF_ABSENT)],
        response_headers_to_remove=[names.UNCONNECTED_HEADER],
    )


def unknown_host() -> EnvoyVirtualHost:
    """404 for every host that nobody owns."""
    body = DataSource(inline_string="no service at this host\n")
    return EnvoyVirtualHost(
        name=UNKNOWN_HOST,
        domains=["*"],
        routes=[Route(match=_match(), direct_response=DirectResponseAction(status=404, body=body))],
    )


def virtual_host(host: VirtualHost, *, nonce: str) -> EnvoyVirtualHost:
    """`nonce`: value of the marker header that this Envoy's activator listeners add."""
    routes = []
    for header, tag, shares in (*((tag, tag, shares) for tag, shares in host.by_tag), ("", host.tag, host.shares)):
        passed = 0
        for share in shares:
            passed += share.percent
            match = _match(upto=passed, tag=header)
            routes.append(_route(host, share.target, match=match, nonce=nonce, tag=tag))
    made = EnvoyVirtualHost(name=host.name, domains=host.domains, routes=routes)
    if host.redirect:
        made.require_tls = EnvoyVirtualHost.ALL  # 301, unless a proxy in front says it was https
    return made


def _route(host: VirtualHost, target: Target, *, match: RouteMatch, nonce: str, tag: str) -> Route:
    added = {}
    removed = [] if host.tag_headers else [keys.HEADER_TAG]
    if host.tag_headers and tag:
        added[keys.HEADER_TAG] = tag
    elif host.tag_headers and host.by_tag:
        added[keys.HEADER_DEFAULT_ROUTE] = "true"
    if host.mapped:
        added[keys.HEADER_ORIGINAL_HOST] = host.domains[0]
    overwrite = HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
    return Route(
        match=match,
        route=RouteAction(
            cluster=target.revision,
            timeout=duration(0),
            idle_timeout=duration(target.idle_seconds),
            host_rewrite_literal=host.rewrite or None,
            retry_policy=retry_policy(nonce=nonce, per_try_seconds=target.response_start_seconds),
        ),
        request_headers_to_add=[_header(name, value, overwrite) for name, value in added.items()],
        request_headers_to_remove=removed,
        request_body_buffer_limit=UInt64Value(value=RETRY_BUFFER_BYTES),
    )


def retry_policy(*, nonce: str, per_try_seconds: float) -> RetryPolicy:
    """First another pod, and after two tries another priority: the activator, which holds until a pod answers.

    No pause between tries: with an interval of 1 ms the jitter is always 0. While a try connects, its small
    buffer holds the client back; in a pause nothing would, and a large body would exceed the retry buffer (1 MiB)
    and be answered 507.
    """
    return RetryPolicy(
        retry_on=RETRY_ON,
        num_retries=uint32(_RETRIES),
        per_try_timeout=duration(per_try_seconds),
        retriable_headers=[HeaderMatcher(name=names.UNCONNECTED_HEADER, string_match=StringMatcher(exact=nonce))],
        retry_back_off=RetryPolicy.RetryBackOff(base_interval=duration(0.001), max_interval=duration(0.001)),
        retry_host_predicate=[
            RetryPolicy.RetryHostPredicate(
                name="envoy.retry_host_predicates.previous_hosts", typed_config=pack(PreviousHostsPredicate())
            )
        ],
        host_selection_retry_max_attempts=5,
        retry_priority=RetryPolicy.RetryPriority(
            name="envoy.retry_priorities.previous_priorities",
            typed_config=pack(PreviousPrioritiesConfig(update_frequency=2)),
        ),
    )


def _match(*, upto: int = 100, tag: str = "") -> RouteMatch:
    match = RouteMatch(prefix="/")
    if upto < 100:
        fraction = FractionalPercent(numerator=upto, denominator=FractionalPercent.HUNDRED)
        match.runtime_fraction.CopyFrom(RuntimeFractionalPercent(default_value=fraction))
    if tag:
        match.headers.add(name=keys.HEADER_TAG, string_match=StringMatcher(exact=tag))
    return match


def _header(name: str, value: str, action: int) -> HeaderValueOption:
    return HeaderValueOption(header=HeaderValue(key=name, value=value), append_action=action)


def clusters_of(hosts: Iterable[VirtualHost]) -> set[str]:
    """Clusters that these virtual hosts name."""
    return {target.revision for host in hosts for target in host.targets()}
