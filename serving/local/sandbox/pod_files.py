"""Files of a pod that its containers see under /etc, and where a sandbox keeps its things.

`<state_dir>/`
: `shim.sock` – the way to the shim
: `etc/` – hosts, hostname, resolv.conf, shared by the pod's containers
: `containers/<name>-<attempt>/` – writable layer, exit.json, pid, termination-log
"""

from __future__ import annotations

from pathlib import Path

from serving.local.sandbox.protocol import PodSandboxSpec

ETC = ("hosts", "hostname", "resolv.conf")


def container_directory(state_dir: Path, name: str, attempt: int) -> Path:
    return state_dir / "containers" / f"{name}-{attempt}"


def hosts(spec: PodSandboxSpec, ip: str) -> str:
    lines = [
        "# Kubernetes-managed hosts file.",
        "127.0.0.1\tlocalhost",
        "::1\tlocalhost ip6-localhost ip6-loopback",
        f"{ip}\t{spec.hostname}",
    ]
    if spec.host_aliases:
        lines.append("# Entries added by HostAliases.")
        lines += [f"{address}\t{name}" for address, name in spec.host_aliases]
    return "\n".join(lines) + "\n"


def resolv_conf(spec: PodSandboxSpec, resolver: str) -> str:
    own = (spec.dns_server or resolver,) if spec.dns_own_resolver else ()
    lines = [f"nameserver {server}" for server in dict.fromkeys((*own, *spec.dns_more_servers))]
    if spec.dns_search:
        lines.append(f"search {' '.join(spec.dns_search)}")
    if spec.dns_options:
        lines.append(f"options {' '.join(spec.dns_options)}")
    return "\n".join(lines) + "\n"


def write(spec: PodSandboxSpec, *, ip: str, resolver: str) -> None:
    directory = spec.state_dir / "etc"
    directory.mkdir(parents=True, exist_ok=True)
    texts = {
        "hosts": hosts(spec, ip),
        "hostname": spec.hostname + "\n",
        "resolv.conf": resolv_conf(spec, resolver),
    }
    for name, text in texts.items():
        path = directory / name
        path.write_text(text)
        path.chmod(0o644)
