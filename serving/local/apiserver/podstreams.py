"""Where exec, attach and port-forward of a pod are on its node: the kubelet's path and query. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlencode

from serving.api.meta import JsonObject
from serving.local.apiserver.errors import bad_request

if TYPE_CHECKING:
    from multidict import MultiMapping

SUBRESOURCES: Final = ("exec", "attach", "portforward")
_STREAMS: Final = (("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty"))


def kubelet_target(pod: JsonObject, subresource: str, query: MultiMapping[str]) -> str:
    """Raises StatusError 400."""
    namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
    container = "" if subresource == "portforward" else choose_container(pod, query.get("container", ""))
    if not (pod.get("spec") or {}).get("nodeName"):
        raise bad_request(f"pod {name} does not have a host assigned")
    path = ["portForward", namespace, name]
    if subresource == "portforward":
        pairs = _ports(query)
    else:
        path = [subresource, namespace, name, container]
        pairs = [(theirs, "1") for ours, theirs in _STREAMS if _true(query.get(ours, ""))]
    if subresource == "exec":
        pairs += [("command", word) for word in query.getall("command", [])]
    where = "/".join(quote(part, safe="") for part in path)
    return f"/{where}?{urlencode(pairs)}" if pairs else f"/{where}"


def _true(text: str) -> bool:
    return text.lower() in ("1", "t", "true")


def _ports(query: MultiMapping[str]) -> list[tuple[str, str]]:
    ports = query.getall("ports", [])
    for port in ports:
        if not port.isdecimal():
            raise bad_request(f'strconv.ParseInt: parsing "{port}": invalid syntax')
    return [("port", ",".join(ports))] if ports else []


def choose_container(pod: JsonObject, wanted: str) -> str:
    """The asked one, else the only one. Raises StatusError 400."""
    spec = pod.get("spec") or {}
    main = [str(container["name"]) for container in spec.get("containers") or ()]
    names = [str(container["name"]) for container in spec.get("initContainers") or ()] + main
    name = pod["metadata"]["name"]
    if wanted:
        if wanted not in names:
            raise bad_request(f"container {wanted} is not valid for pod {name}")
        return wanted
    if len(main) == 1:
        return main[0]
    choices = f", choose one of: [{' '.join(names)}]" if main else ""
    raise bad_request(f"a container name must be specified for pod {name}{choices}")
