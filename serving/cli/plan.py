"""`nodeless plan` and `nodeless catalog`: what a service should run on, in money, without a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import yaml

from serving.api.duration import parse_seconds
from serving.api.quantity import QuantityError, parse_quantity
from serving.cli.terminal import console, print_json, table
from sizing.catalog.lattice import Shape
from sizing.catalog.load import load_catalog
from sizing.catalog.offers import Catalog, CatalogError, Offer, Wish
from sizing.choice import IDLE_POLICIES, Answer, Needs, Plan, Question
from sizing.coldstart import Program
from sizing.demand import Demand, DemandError
from sizing.plan import Planner, describe
from sizing.trace import Trace, read_trace

if TYPE_CHECKING:
    from serving.cli.main import Globals

_MONTH_SECONDS = 30.4375 * 86_400
_CONCURRENCY = (1, 2, 5, 10, 20, 50, 100)
_NINES = (0.5, 0.9, 0.95, 0.99, 0.999)


class Seconds(click.ParamType[float]):
    """`300ms`, `2s`, `1m`."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        try:
            return parse_seconds(str(value))
        except ValueError:
            self.fail(f"{value!r} is not a duration such as 300ms, 2s or 1m30s", param, ctx)


class Gibibytes(click.ParamType[float]):
    """`256Mi`, `1Gi`."""

    name = "quantity"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        try:
            return float(parse_quantity(str(value)) / 2**30)
        except QuantityError:
            self.fail(f"{value!r} is not a quantity such as 256Mi or 1Gi", param, ctx)


class Spec(click.ParamType[Shape]):
    """`1-2Gi`: vCPU and memory."""

    name = "spec"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Shape:
        if isinstance(value, Shape):
            return value
        vcpu, _, memory = str(value).partition("-")
        try:
            return Shape(float(parse_quantity(vcpu)), float(parse_quantity(memory) / 2**30))
        except QuantityError:
            self.fail(f"{value!r} is not vCPU and memory such as 1-2Gi", param, ctx)


_OVERLAYS = click.option(
    "--prices",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    multiple=True,
    help="YAML with your own discounts, providers and exchange rates; laid over the built-in catalogue.",
)
_PROVIDERS = click.option(
    "--provider",
    multiple=True,
    help="Only these.  [default: local; all where --prices says what currencies are worth]",
)
_MODES = click.option("--purchase-mode", multiple=True, help="Only these, e.g. on-demand, spot.")


@click.command("catalog")
@_OVERLAYS
@_PROVIDERS
@_MODES
@click.option("--memory", type=Gibibytes(), default=0.0, help="Least memory of a pod.")
@click.pass_obj
def catalog(
    options: Globals, prices: Sequence[Path], provider: Sequence[str], purchase_mode: Sequence[str], memory: float
) -> None:
    """List what pods can run on: for each size of CPU the least memory that is enough, cheapest first."""
    wish = Wish(providers=tuple(provider), modes=tuple(purchase_mode), arch=(), min_gib=memory)
    try:
        offers = load_catalog(prices).offers(wish)
    except CatalogError as error:
        raise click.ClickException(str(error)) from error
    if options.output == "json":
        print_json(offers)
        return
    rows = [
        [
            offer.name,
            f"{offer.rate * 3600:.5f}",
            f"{offer.rate * _MONTH_SECONDS:.2f}",
            offer.currency,
            _network(offer),
        ]
        for offer in offers
    ]
    console().print(table(["OFFER", "HOUR", "MONTH", "CURRENCY", "GBIT/S"], rows))


def _network(offer: Offer) -> str:
    return "-" if offer.net_gbps is None else f"{offer.net_gbps:g}"


@click.command("plan")
@click.option(
    "--trace",
    "trace_file",
    type=click.File("r", encoding="utf-8", errors="replace", lazy=True),
    required=True,
    help="CSV with a header, JSON lines or an access log; - reads standard input.",
)
@click.option(
    "--file", "-f", "manifest", type=click.File("r", lazy=True), help="Service whose requests and limits to take."
)
@click.option("--sla", type=Seconds(), required=True, help="Longest wait for a pod, e.g. 300ms.")
@click.option(
    "--percentile",
    type=click.FloatRange(1, 99.999),
    default=95.0,
    show_default=True,
    help="Of requests within it.",
)
@click.option("--request-seconds", type=Seconds(), default="100ms", help="Time of a request, if the log has none.")
@click.option("--cpu-seconds", type=Seconds(), default="50ms", show_default=True, help="CPU work of a request.")
@click.option("--latency", type=Seconds(), help="Service time that 95 % of requests must keep on a running pod.")
@click.option("--memory", type=Gibibytes(), help="Memory of a pod without requests.  [default: 256Mi]")
@click.option("--memory-per-request", type=Gibibytes(), default=0.0, help="More for each request in flight.")
@click.option(
    "--concurrency",
    type=click.IntRange(1),
    multiple=True,
    help="containerConcurrency to consider.  [default: 1 to 100]",
)
@click.option("--idle-policy", type=click.Choice(IDLE_POLICIES), multiple=True, help="Only these.  [default: all]")
@click.option("--image-size", type=Gibibytes(), default="50Mi", show_default=True, help="Compressed image.")
@click.option(
    "--image-cached/--image-not-cached", default=True, show_default=True, help="In the provider's cache."
)
@click.option("--start-work", type=Seconds(), default="300ms", show_default=True, help="CPU work until ready.")
@click.option("--spec", type=Spec(), multiple=True, help="Only these, e.g. 1-2Gi.")
@click.option("--sort", is_flag=True, help="The log is not in order of arrival.")
@_PROVIDERS
@_MODES
@_OVERLAYS
@click.pass_obj
def plan(options: Globals, /, trace_file: Any, prices: Sequence[Path], sort: bool, **asked: Any) -> None:
    """Find the cheapest way to run a service that keeps its cold-start SLA, from a log of its requests.

    Prints the pick, what is cheaper and why it fails, and what every nine costs. Needs no cluster.
    """
    try:
        found = load_catalog(prices)
        trace = read_trace(trace_file, name=trace_file.name, sort=sort)
        question = _question(found, trace, asked)
        planner = Planner(question, found)
        answer = planner.answer()
        nines = planner.nines(_NINES)
    except (CatalogError, DemandError) as error:
        raise click.ClickException(str(error)) from error
    if options.output == "json":
        print_json({"answer": answer, "nines": [{"percentile": q, "plan": one} for q, one in nines]})
    else:
        _print(question, answer, nines)
    if answer.pick is None:
        raise SystemExit(1)


def _question(catalog: Catalog, trace: Trace, asked: dict[str, Any]) -> Question:
    service = {} if asked["manifest"] is None else _service(asked["manifest"])
    memory = asked["memory"] or service.get("memory") or 0.25
    providers = tuple(asked["provider"]) or (("local",) if not catalog.currency else ())
    return Question(
        demand=trace.demand(seconds=asked["request_seconds"], cpu_seconds=asked["cpu_seconds"]),
        sla_seconds=asked["sla"],
        percentile=asked["percentile"] / 100,
        program=Program(
            image_bytes=asked["image_size"] * 2**30,
            cached=asked["image_cached"],
            work_vcpu_seconds=asked["start_work"],
        ),
        needs=Needs(
            memory_gib=memory,
            memory_per_request_gib=asked["memory_per_request"],
            latency_seconds=asked["latency"],
        ),
        wish=Wish(
            providers=providers,
            modes=tuple(asked["purchase_mode"]),
            specs=tuple(asked["spec"]),
            min_vcpu=service.get("vcpu", 0.0),
        ),
        concurrency=tuple(asked["concurrency"]) or service.get("concurrency", _CONCURRENCY),
        idle=tuple(asked["idle_policy"]) or IDLE_POLICIES,
    )


def _service(manifest: Any) -> dict[str, Any]:
    """What the pod template of a Service asks for. Raises ClickException naming the field."""
    try:
        document = yaml.safe_load(manifest)
        spec = document["spec"]["template"]["spec"]
        containers = spec["containers"]
    except (yaml.YAMLError, TypeError, KeyError) as error:
        raise click.ClickException(f"{manifest.name}: no spec.template.spec.containers: {error}") from error
    found: dict[str, Any] = {}
    for kind, key, unit in (("cpu", "vcpu", 1), ("memory", "memory", 2**30)):
        values = [(one.get("resources") or {}).get("requests", {}).get(kind) for one in containers]
        try:
            total = sum(parse_quantity(value) for value in values if value is not None)
        except QuantityError as error:
            raise click.ClickException(
                f"{manifest.name}: spec.template.spec.containers[*].resources.requests.{kind}: {error}"
            ) from error
        if total:
            found[key] = float(total / unit)
    if spec.get("containerConcurrency"):
        found["concurrency"] = (int(spec["containerConcurrency"]),)
    return found


def _print(question: Question, answer: Answer, nines: Sequence[tuple[float, Plan | None]]) -> None:
    out = console()
    demand = question.demand
    out.print(
        f"{len(demand.arrivals):,} requests in {_span(demand.period)}; "
        f"a pod within {question.sla_seconds:g} s for {question.percentile * 100:g} % of them\n"
    )
    if answer.pick is None:
        out.print(f"[bold red]no plan[/]: {answer.advice}\n")
    shown = answer.pick or answer.nearest
    out.print(f"[bold]{'pick' if answer.pick else 'nearest'}[/]  {describe(shown)}")
    _print_cost(shown, demand)
    if not answer.enough_data:
        out.print(
            "[yellow]so few requests prove little: the plan is careful, and may get cheaper with a longer log[/]"
        )
    if answer.rejected:
        out.print("\n[bold]cheaper, and why not[/]")
        rows = [
            ["-" if one.cost is None else _month(one.cost, demand, shown), one.what, one.reason]
            for one in sorted(answer.rejected, key=lambda one: -(one.cost or 0.0))
        ]
        out.print(table(["MONTH", "PLAN", "REASON"], rows))
    out.print("\n[bold]what every nine costs[/]")
    rows = [
        [
            f"{q * 100:g} %",
            "-" if one is None else _month(one.cost.total, demand, one),
            "no plan" if one is None else describe(one),
        ]
        for q, one in nines
    ]
    out.print(table(["WITHIN SLA", "MONTH", "PLAN"], rows))


def _print_cost(shown: Plan, demand: Demand) -> None:
    cost = shown.cost
    parts = [("active", cost.active), ("idle", cost.idle), ("starting", cost.starting), ("fees", cost.fees)]
    split = ", ".join(f"{name} {_month(value, demand, shown)}" for name, value in parts if value)
    console().print(
        f"      {_month(cost.total, demand, shown)} {shown.choice.offer.currency} a month ({split}); "
        f"{shown.held * 100:.3f} % of requests expected within the SLA"
    )


def _month(cost: float, demand: Demand, plan: Plan) -> str:
    return f"{cost / demand.period * _MONTH_SECONDS:.2f}"


def _span(seconds: float) -> str:
    for size, unit in ((86_400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} seconds"
