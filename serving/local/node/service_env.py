"""The variables by which programs in pods find the API server, as kubelets set them. Pure."""

from __future__ import annotations


def service_environment(api_server: tuple[str, int] | None) -> dict[str, str]:
    """Of the Service `kubernetes`. The host may be a name: clients put it into a URL."""
    if api_server is None:
        return {}
    host, port = api_server
    url = f"tcp://{host}:{port}"
    return {
        "KUBERNETES_SERVICE_HOST": host,
        "KUBERNETES_SERVICE_PORT": str(port),
        "KUBERNETES_SERVICE_PORT_HTTPS": str(port),
        "KUBERNETES_PORT": url,
        f"KUBERNETES_PORT_{port}_TCP": url,
        f"KUBERNETES_PORT_{port}_TCP_PROTO": "tcp",
        f"KUBERNETES_PORT_{port}_TCP_PORT": str(port),
        f"KUBERNETES_PORT_{port}_TCP_ADDR": host,
    }
