"""Runs in a pod, with nothing but the standard library: tells what its files say and what the API server answers.

/file?path=…  the file's content
/api?path=…   what the API server answers to the pod's service account: {"status": …, "body": …}
"""

import json
import os
import ssl
import urllib.error
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


def call(path: str) -> dict[str, object]:
    base = f"https://{os.environ['KUBERNETES_SERVICE_HOST']}:{os.environ['KUBERNETES_SERVICE_PORT']}"
    token = (ACCOUNT / "token").read_text()
    request = urllib.request.Request(base + path, headers={"Authorization": f"Bearer {token}"})
    trust = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
    try:
        with urllib.request.urlopen(request, context=trust, timeout=10) as response:
            return {"status": response.status, "body": json.load(response)}
    except urllib.error.HTTPError as error:
        return {"status": error.code, "body": json.load(error)}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        path = urllib.parse.parse_qs(url.query).get("path", [""])[0]
        if url.path == "/api":
            answer: object = call(path)
        else:
            file = Path(path)
            answer = {"content": file.read_text() if file.exists() else None}
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


ThreadingHTTPServer(("", int(os.environ["PORT"])), Handler).serve_forever()
