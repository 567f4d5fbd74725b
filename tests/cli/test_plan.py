"""`nodeless plan` and `nodeless catalog` as a user calls them; no stack is needed."""

from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner, Result

from serving.cli.main import cli

SERVICE = """
apiVersion: serving.knative.dev/v1
kind: Service
metadata: {name: hello}
spec:
  template:
    spec:
      containerConcurrency: 5
      containers:
      - {image: dev.local/hello, resources: {requests: {cpu: 600m, memory: 700Mi}}}
"""


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    times = np.sort(np.random.default_rng(4).uniform(0, 86_400, 600))
    path = tmp_path / "calls.csv"
    path.write_text("time,duration\n" + "".join(f"{time:.3f},0.2\n" for time in times))
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def test_a_tight_sla_takes_a_rung_that_wakes_fast_and_a_loose_one_zero(trace: Path) -> None:
    tight = run("plan", "--trace", trace, "--sla", "100ms", "--provider", "local")
    assert tight.exit_code == 0, tight.output
    assert "frozen" in tight.output.split("cheaper")[0]
    loose = run("plan", "--trace", trace, "--sla", "10s", "--provider", "alibaba-eci")
    assert "zero at once" in loose.output.split("cheaper")[0]
    assert "what every nine costs" in loose.output


def test_json_has_everything(trace: Path) -> None:
    result = run("-o", "json", "plan", "--trace", trace, "--sla", "1s", "--provider", "alibaba-eci")
    assert result.exit_code == 0, result.output
    document = msgspec.json.decode(result.output)
    assert {"pick", "front", "rejected", "nearest"} <= document["answer"].keys()
    assert [one["percentile"] for one in document["nines"]] == [0.5, 0.9, 0.95, 0.99, 0.999]


def test_what_the_service_asks_for_is_the_least(trace: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "service.yaml"
    manifest.write_text(SERVICE)
    result = run(
        "-o", "json", "plan", "-f", manifest, "--trace", trace, "--sla", "1s", "--provider", "alibaba-eci"
    )
    assert result.exit_code == 0, result.output
    choice = msgspec.json.decode(result.output)["answer"]["pick"]["choice"]
    assert choice["concurrency"] == 5
    assert choice["offer"]["shape"]["vcpu"] >= 1  # 600m is above 0.5
    assert choice["offer"]["shape"]["gib"] >= 0.68


def test_own_prices(trace: Path, tmp_path: Path) -> None:
    prices = tmp_path / "prices.yaml"
    prices.write_text("providers: {alibaba-eci: {purchase_modes: {on-demand: {factor: 0.5}}}}\n")
    full = run("-o", "json", "catalog", "--provider", "alibaba-eci")
    half = run("-o", "json", "catalog", "--provider", "alibaba-eci", "--prices", prices)
    rates = [msgspec.json.decode(result.output)[0]["rate"] for result in (full, half)]
    assert rates[1] == pytest.approx(rates[0] / 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sla", "soon"], "'soon' is not a duration such as 300ms"),
        (["--sla", "1s", "--memory", "much"], "'much' is not a quantity such as 256Mi"),
        (["--sla", "1s", "--spec", "large"], "'large' is not vCPU and memory such as 1-2Gi"),
        (["--sla", "1s", "--percentile", "100"], "100.0 is not in the range"),
        (["--sla", "1s", "--provider", "mars"], "provider: unknown 'mars'; known are"),
        (["--sla", "1s", "--provider", "alibaba-eci", "--purchase-mode", "spot"], "without a price"),
        (["--sla", "1s", "--provider", "local", "--provider", "azure-aci"], "CNY and USD cannot be compared"),
    ],
)
def test_bad_input_is_one_line(trace: Path, arguments: list[str], message: str) -> None:
    result = run("plan", "--trace", trace, *arguments)
    assert result.exit_code != 0
    assert message in result.output


def test_a_bad_log_names_the_row(tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_text("time\n1\nlater\n")
    result = run("plan", "--trace", path, "--sla", "1s")
    assert result.exit_code == 1
    assert "row 3: time: 'later' is neither" in result.output
