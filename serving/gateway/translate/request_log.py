"""The request log of config-observability as access logs of Envoy.

One line for each request that is answered for a revision; requests for hosts that nobody owns are not logged, as
in Knative, where pods write these lines. A request that was held does not show the address of its pod to the
entrance: the activator's listener says it in a response header, which a filter of the entrance turns into metadata
and removes. All of this is there only while the log is on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from envoy.config.accesslog.v3.accesslog_pb2 import (
    AccessLog,
    AccessLogFilter,
    AndFilter,
    ExtensionFilter,
    HeaderFilter,
    MetadataFilter,
)
from envoy.config.core.v3.base_pb2 import DataSource, HeaderValue, HeaderValueOption
from envoy.config.core.v3.cel_pb2 import CelExpressionConfig
from envoy.config.core.v3.extension_pb2 import TypedExtensionConfig
from envoy.config.core.v3.substitution_format_string_pb2 import SubstitutionFormatString
from envoy.config.route.v3.route_components_pb2 import HeaderMatcher
from envoy.extensions.access_loggers.file.v3.file_pb2 import FileAccessLog
from envoy.extensions.access_loggers.filters.cel.v3.cel_pb2 import ExpressionFilter
from envoy.extensions.filters.http.header_to_metadata.v3.header_to_metadata_pb2 import Config as HeaderToMetadata
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import HttpFilter
from envoy.type.matcher.v3.metadata_pb2 import MetadataMatcher
from envoy.type.matcher.v3.string_pb2 import StringMatcher
from envoy.type.matcher.v3.value_pb2 import ValueMatcher
from google.protobuf.any_pb2 import Any as Any_
from google.protobuf.struct_pb2 import Struct
from google.protobuf.wrappers_pb2 import BoolValue

from serving.api.config.request_log import HEADER, Bare, Field, Text, parse_log
from serving.gateway.ir import RequestLog
from serving.gateway.translate import names
from serving.gateway.translate.proto import pack

_METADATA: Final = "nodeless.log"
_POD: Final = "pod"
_FILTER: Final = "envoy.filters.http.header_to_metadata"
_CEL_TYPE: Final = "type.googleapis.com/envoy.extensions.formatter.cel.v3.Cel"
_LOGGER: Final = "envoy.access_loggers.file"
_POD_IP: Final = "Revision.PodIP"
_NOTHING: Final = f"%DYNAMIC_METADATA({_METADATA}:nothing)%"
"""Empty. Beside it a field is a text even where it would be a number."""
_OPERATORS: Final = {
    "Request.Method": "%REQ(:METHOD)%",
    "Request.RequestURI": "%REQ(:PATH)%",
    "Request.URL": "%REQ(:PATH)%",
    "Request.URL.Path": "%PATH(NQ)%",
    "Request.Host": "%REQ(:AUTHORITY)%",
    "Request.Proto": "%PROTOCOL%",
    "Request.ContentLength": "%BYTES_RECEIVED%",
    "Request.UserAgent": "%REQ(USER-AGENT)%",
    "Request.Referer": "%REQ(REFERER)%",
    "Request.RemoteAddr": "%DOWNSTREAM_REMOTE_ADDRESS%",
    "Response.Code": "%RESPONSE_CODE%",
    "Response.Size": "%BYTES_SENT%",
    "Response.Latency": "%COMMON_DURATION(DS_RX_BEG:DS_TX_END:us)%e-6",
    "Revision.Name": f"%METADATA(CLUSTER:{names.METADATA}:name)%",
    "Revision.Namespace": f"%METADATA(CLUSTER:{names.METADATA}:namespace)%",
    "Revision.Service": f"%METADATA(CLUSTER:{names.METADATA}:service)%",
    "Revision.Configuration": f"%METADATA(CLUSTER:{names.METADATA}:configuration)%",
    "TraceID": "%CEL('traceparent' in request.headers ? request.headers['traceparent'].substring(3, 35) "
    ": request.headers['x-b3-traceid'])%",
}
_PROBES: Final = (("user-agent", "kube-probe/"), ("k-kubelet-probe", ""))


def access_logs(log: RequestLog) -> list[AccessLog]:
    """Of the entrances. Raises TemplateError, which admission has refused before."""
    conditions = [_routed(), *([] if log.probes else [_no_probe(name, prefix) for name, prefix in _PROBES])]
    return [
        _logger(log, f"%DYNAMIC_METADATA({_METADATA}:{_POD})%", [_held(True), *conditions]),
        _logger(log, "%UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", [_held(False), *conditions]),
    ]


def pod_filter() -> HttpFilter:
    """Of the entrances: what the activator says of the pod."""
    rule = HeaderToMetadata.Rule(
        header=names.POD_HEADER,
        on_header_present=HeaderToMetadata.KeyValuePair(metadata_namespace=_METADATA, key=_POD),
        remove=True,
    )
    return HttpFilter(name=_FILTER, typed_config=pack(HeaderToMetadata(response_rules=[rule])))


def pod_header() -> HeaderValueOption:
    """Of the activator's routes."""
    value = HeaderValue(key=names.POD_HEADER, value="%UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%")
    return HeaderValueOption(header=value, append_action=HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD)


def _logger(log: RequestLog, pod_ip: str, conditions: list[AccessLogFilter]) -> AccessLog:
    parsed = parse_log(log.template)
    operators = _OPERATORS | {_POD_IP: pod_ip}
    form = SubstitutionFormatString(omit_empty_values=True, formatters=[_cel()])
    if parsed.tree is None:
        line = _text(parsed.text, operators).removesuffix("\n") + "\n"
        form.text_format_source.CopyFrom(DataSource(inline_string=line))
    else:
        form.json_format.CopyFrom(Struct())
        form.json_format.update(_json(parsed.tree, operators))
    config = FileAccessLog(path=log.path, log_format=form)
    return AccessLog(
        name=_LOGGER,
        filter=AccessLogFilter(and_filter=AndFilter(filters=conditions)),
        typed_config=pack(config),
    )


def _json(tree: Any, operators: Mapping[str, str]) -> Any:
    if isinstance(tree, dict):
        return {key: _json(value, operators) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_json(value, operators) for value in tree]
    if isinstance(tree, Bare):
        return _operator(tree.field, operators)
    if isinstance(tree, tuple):
        text = _text(tree, operators)
        return text + _NOTHING if len(tree) == 1 and isinstance(tree[0], Field) else text
    return tree


def _text(parts: Text, operators: Mapping[str, str]) -> str:
    return "".join(_operator(p, operators) if isinstance(p, Field) else p.replace("%", "%%") for p in parts)


def _operator(field: Field, operators: Mapping[str, str]) -> str:
    return f"%REQ({field.header})%" if field.name == HEADER else operators[field.name]


def _cel() -> TypedExtensionConfig:
    """CEL with functions on texts. Its message is newer than our bindings: field 1 holds the settings."""
    settings = CelExpressionConfig(enable_string_functions=True).SerializeToString()
    value = Any_(type_url=_CEL_TYPE, value=bytes([1 << 3 | 2, len(settings)]) + settings)
    return TypedExtensionConfig(name="envoy.formatter.cel", typed_config=value)


def _held(was: bool) -> AccessLogFilter:
    # `invert` is ignored here; no address is the empty text.
    value = ValueMatcher(present_match=True) if was else ValueMatcher(string_match=StringMatcher(exact=""))
    path = [MetadataMatcher.PathSegment(key=_POD)]
    matcher = MetadataMatcher(filter=_METADATA, path=path, value=value)
    return AccessLogFilter(
        metadata_filter=MetadataFilter(matcher=matcher, match_if_key_not_found=BoolValue(value=not was))
    )


def _routed() -> AccessLogFilter:
    """Not one that was answered for nobody."""
    return AccessLogFilter(
        extension_filter=ExtensionFilter(
            name="envoy.access_loggers.extension_filters.cel",
            typed_config=pack(ExpressionFilter(expression="xds.cluster_name != ''")),
        )
    )


def _no_probe(header: str, prefix: str) -> AccessLogFilter:
    matcher = HeaderMatcher(name=header, invert_match=True)
    if prefix:
        matcher.string_match.CopyFrom(StringMatcher(prefix=prefix))
        matcher.treat_missing_header_as_empty = True
    else:
        matcher.present_match = True
    return AccessLogFilter(header_filter=HeaderFilter(header=matcher))
