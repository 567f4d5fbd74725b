"""kn, Knative's own command line, does with nodeless what it does with Knative."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from serving.api.resources import DOMAIN_CLAIMS
from tests.e2e.cluster import Cluster
from tests.e2e.http import Gateway
from tests.e2e.stack import Stack

IMAGE = "dev.local/hello-static:latest"
BUILD_SECONDS = 1800
pytestmark = pytest.mark.timeout(BUILD_SECONDS)


class Kn:
    """One kn against one stack, with a home of its own."""

    def __init__(self, program: Path, *, kubeconfig: Path, home: Path) -> None:
        self._program = program
        self._environment = {**os.environ, "KUBECONFIG": str(kubeconfig), "HOME": str(home)}

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self._program, *arguments],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )

    def __call__(self, *arguments: str) -> str:
        """Its standard output; a failure fails the test."""
        done = self.run(*arguments)
        assert done.returncode == 0, f"kn {' '.join(arguments)}: {done.stderr}{done.stdout}"
        return done.stdout

    def json(self, *arguments: str) -> Any:
        return json.loads(self(*arguments, "-o", "json"))

    def create(self, name: str, *options: str) -> str:
        return self("service", "create", name, "--image", IMAGE, "--scale-window", "20s", *options)


@pytest.fixture
def kn(kn_program: Path, stack: Stack, cluster: Cluster, tmp_path: Path) -> Kn:
    """`cluster` deletes what a test leaves."""
    return Kn(kn_program, kubeconfig=stack.data_dir / "kubeconfig", home=tmp_path)


def rows(table: str) -> dict[str, list[str]]:
    """A table's rows by their first column."""
    return {line.split()[0]: line.split()[1:] for line in table.splitlines()[1:] if line.strip()}


async def test_a_service_from_create_to_delete(kn: Kn, gateway: Gateway, name: str) -> None:
    created = kn.create(name, "--env", "TARGET=one", "--annotation-service", "team=blue", "--label", "tier=web")
    url = f"http://{name}.default.{gateway.domain}"
    assert created.splitlines()[-1] == url
    assert "Ready to serve." in created
    assert (await gateway.get(name)).text == "Hello one!\n"
    assert rows(kn("service", "list"))[name][:2] == [url, f"{name}-00001"]
    assert kn("service", "describe", name, "-o", "url").strip() == url
    described = kn("service", "describe", name, "--verbose")
    for expected in (f"@latest ({name}-00001)", "team=blue", "tier=web", "TARGET=one", "++ RoutesReady"):
        assert expected in described
    updated = kn("service", "update", name, "--env", "TARGET=two", "--scale-min", "1", "--concurrency-limit", "5")
    assert f"updated to latest revision '{name}-00002'" in updated
    assert (await gateway.get(name)).text == "Hello two!\n"
    assert "successfully deleted" in kn("service", "delete", name, "--wait")
    assert name not in rows(kn("service", "list"))


async def test_traffic_and_tags(kn: Kn, gateway: Gateway, name: str) -> None:
    kn.create(name, "--env", "TARGET=one")
    kn("service", "update", name, "--env", "TARGET=two")
    old, new = f"{name}-00001", f"{name}-00002"
    kn("service", "update", name, "--tag", f"{old}=old,@latest=new", "--traffic", "old=100")
    assert {(await gateway.get(name)).text for _ in range(10)} == {"Hello one!\n"}
    assert (await gateway.get(f"new-{name}")).text == "Hello two!\n"
    listed = rows(kn("revision", "list", "--service", name))
    assert listed[old][1:3] == ["100%", "old"]
    described = kn("route", "describe", name)
    assert f"100%  {old} #old" in described
    assert f"http://new-{name}.default.{gateway.domain}" in described
    kn("service", "update", name, "--untag", "old,new", "--traffic", f"{old}=50,{new}=50")
    answers = [(await gateway.get(name)).text for _ in range(60)]
    assert min(answers.count(f"Hello {word}!\n") for word in ("one", "two")) >= 10
    assert "True" in rows(kn("route", "list"))[name]


def test_revisions(kn: Kn, name: str) -> None:
    kn.create(name, "--env", "TARGET=one", "--revision-name", f"{name}-first")
    kn("service", "update", name, "--env", "TARGET=two", "--revision-name", f"{name}-second")
    assert {f"{name}-first", f"{name}-second"} <= set(rows(kn("revision", "list", "-s", name)))
    described = kn("revision", "describe", f"{name}-first")
    assert "TARGET=one" in described
    assert f"Service:      {name}" in described
    kn("revision", "delete", f"{name}-first")
    assert f"{name}-first" not in rows(kn("revision", "list", "-s", name))


def test_apply_changes_only_what_changed(kn: Kn, name: str) -> None:
    options = ("--image", IMAGE, "--env", "TARGET=one")
    assert f"'{name}-00001'" in kn("service", "apply", name, *options)
    assert "No changes to apply" in kn("service", "apply", name, *options)
    assert f"'{name}-00002'" in kn("service", "apply", name, "--image", IMAGE, "--env", "TARGET=two")


def test_a_service_from_a_file(kn: Kn, name: str, tmp_path: Path) -> None:
    container = {"image": IMAGE, "env": [{"name": "TARGET", "value": "file"}]}
    body = {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"template": {"spec": {"containers": [container]}}},
    }
    file = tmp_path / "service.yaml"
    file.write_text(yaml.safe_dump(body))
    assert f"'{name}-00001'" in kn("service", "create", "--filename", str(file))


async def test_export_and_import(kn: Kn, gateway: Gateway, name: str, tmp_path: Path) -> None:
    # Names of the user's own: kn creates the Service before its old revisions, so generated names would clash.
    first, second = f"{name}-first", f"{name}-second"
    kn.create(name, "--env", "TARGET=one", "--revision-name", first)
    kn("service", "update", name, "--env", "TARGET=two", "--revision-name", second)
    kn("service", "update", name, "--traffic", f"{first}=50,{second}=50")
    exported = tmp_path / "exported.yaml"
    exported.write_text(kn("service", "export", name, "--with-revisions", "--mode", "export", "-o", "yaml"))
    kn("service", "delete", name, "--wait")
    kn("service", "import", str(exported))
    assert {first, second} <= set(rows(kn("revision", "list", "-s", name)))
    assert {(await gateway.get(name)).text for _ in range(40)} == {"Hello one!\n", "Hello two!\n"}


def test_without_waiting(kn: Kn, name: str) -> None:
    assert f"Service '{name}' created in namespace 'default'." in kn.create(name, "--no-wait")
    kn("service", "update", name, "--env", "TARGET=two", "--no-wait")
    kn("service", "delete", name, "--no-wait")


def test_what_cannot_become_ready_fails_with_the_reason(kn: Kn, name: str) -> None:
    missing = "127.0.0.1:9/nobody/nothing:latest"
    done = kn.run("service", "create", name, "--image", missing, "--wait-timeout", "60")
    assert done.returncode == 1
    assert "Unable to fetch image" in done.stderr
    assert missing in done.stderr


def test_refused_options_are_told(kn: Kn, name: str) -> None:
    done = kn.run("service", "create", name, "--image", IMAGE, "--annotation", "autoscaling.knative.dev/window=1s")
    assert done.returncode == 1
    assert "autoscaling.knative.dev/window" in done.stderr


async def test_domains(kn: Kn, cluster: Cluster, gateway: Gateway, name: str) -> None:
    domain, other = f"{name}.example.org", f"{name}-other"
    await cluster.client.create(
        DOMAIN_CLAIMS,
        {
            "apiVersion": DOMAIN_CLAIMS.api_version,
            "kind": DOMAIN_CLAIMS.kind,
            "metadata": {"name": domain},
            "spec": {"namespace": "default"},
        },
    )
    kn.create(name, "--env", "TARGET=one")
    kn.create(other, "--env", "TARGET=other")
    assert "created" in kn("domain", "create", domain, "--ref", name)
    await cluster.condition("domainmapping", domain)
    assert rows(kn("domain", "list"))[domain] == [f"http://{domain}", "True", name]
    assert (await gateway.get(domain)).text == "Hello one!\n"
    assert "++ DomainClaimed" in kn("domain", "describe", domain)
    kn("domain", "update", domain, "--ref", f"ksvc:{other}")
    await cluster.condition("domainmapping", domain)
    assert (await gateway.get(domain)).text == "Hello other!\n"
    kn("domain", "delete", domain)
    assert domain not in rows(kn("domain", "list"))
