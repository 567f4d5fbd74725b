"""Label and field selectors."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.local.apiserver.errors import StatusError
from serving.local.apiserver.kinds import Kind
from serving.local.apiserver.selectors import (
    from_label_selector,
    match_fields,
    match_labels,
    parse_fields,
    parse_labels,
)
from tests.local.apiserver.objects import CONFIG_MAP, POD, WIDGET, builtin

LABELS = {"app": "web", "tier": "front", "serving.knative.dev/service": "hello", "n": "5", "empty": ""}


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("", True),
        ("app=web", True),
        ("app==web", True),
        (" app = web , tier=front ", True),
        ("app=api", False),
        ("app!=api", True),
        ("absent!=x", True),
        ("app", True),
        ("!app", False),
        ("!absent", True),
        ("app in (web, api)", True),
        ("app in (api)", False),
        ("app notin (api)", True),
        ("absent notin (api)", True),
        ("absent in (api)", False),
        ("n>4", True),
        ("n<5", False),
        ("app>4", False),
        ("serving.knative.dev/service=hello", True),
        ("empty=", True),
        ("app=", False),
        ("app in (web),tier notin (back),!absent,n", True),
    ],
)
def test_labels(selector: str, expected: bool) -> None:
    assert match_labels(parse_labels(selector), LABELS) is expected


@pytest.mark.parametrize("selector", ["=x", "a=b=c", "a in b", "a in (b", "a,", "a b", "a=!", "in (x)y"])
def test_bad_labels(selector: str) -> None:
    with pytest.raises(StatusError) as caught:
        parse_labels(selector)
    assert caught.value.code == 400
    assert "found '" in caught.value.message


NAMES = st.sampled_from(["a", "b", "x.dev/c"])
VALUES = st.sampled_from(["1", "2", "x"])


@given(
    labels=st.dictionaries(NAMES, VALUES),
    key=NAMES,
    values=st.lists(VALUES, min_size=1, max_size=3, unique=True),
    wanted=st.dictionaries(NAMES, VALUES),
)
def test_text_and_object_form_agree(
    labels: dict[str, str], key: str, values: list[str], wanted: dict[str, str]
) -> None:
    listed = ",".join(values)
    text = ",".join([f"{key} in ({listed})", *(f"{name}={value}" for name, value in wanted.items())])
    form = {"matchLabels": wanted, "matchExpressions": [{"key": key, "operator": "In", "values": values}]}
    assert match_labels(parse_labels(text), labels) == match_labels(from_label_selector(form), labels)
    assert match_labels(parse_labels(f"{key} in ({listed})"), labels) != match_labels(
        parse_labels(f"{key} notin ({listed})"), labels
    )


OBJECT: dict[str, Any] = {
    "metadata": {"name": "p", "namespace": "default"},
    "spec": {"nodeName": "local", "colour": "red"},
    "status": {"phase": "Running"},
    "involvedObject": {"name": "p", "kind": "Pod"},
    "source": {"component": "kubelet"},
}
EVENT = builtin("v1", "Event")


@pytest.mark.parametrize(
    ("kind", "selector", "expected"),
    [
        (POD, "metadata.name=p", True),
        (POD, "metadata.name!=p", False),
        (POD, "metadata.namespace==default,status.phase=Running", True),
        (POD, "spec.nodeName=", False),
        (POD, "spec.hostNetwork=false", True),
        (POD, "", True),
        (EVENT, "involvedObject.name=p,involvedObject.namespace=,involvedObject.kind=Pod", True),
        (EVENT, "source=kubelet", True),
        (WIDGET, "spec.colour=red", True),
    ],
)
def test_fields(kind: Kind, selector: str, expected: bool) -> None:
    assert match_fields(parse_fields(selector, kind), OBJECT) is expected


@pytest.mark.parametrize(
    ("kind", "selector"), [(POD, "spec.x=1"), (CONFIG_MAP, "data.a=b"), (WIDGET, "spec.size=1")]
)
def test_unsupported_fields(kind: Kind, selector: str) -> None:
    with pytest.raises(StatusError, match=r"not supported|is not a known field selector") as caught:
        parse_fields(selector, kind)
    assert caught.value.code == 400


def test_malformed_field_selector() -> None:
    with pytest.raises(StatusError, match="invalid selector"):
        parse_fields("metadata.name", POD)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("app in x", "unable to parse requirement: found 'x' expected: '('"),
        ("app in (x", "unable to parse requirement: found '', expected: ',' or ')'"),
        ("app!", f"unable to parse requirement: found '!', expected: {'in, notin, =, ==, !=, gt, lt'}"),
        ("a=b=c", "found '=', expected: ',' or 'end of string'"),
        ("a,", "found '', expected: identifier after ','"),
        ("(x)", "found '(', expected: !, identifier, or 'end of string'"),
        ("!=x", "found '!=', expected: !, identifier, or 'end of string'"),
        (
            "a>x",
            "values[0]: Invalid value: \"x\": for 'Gt', 'Lt' operators, the value must be an integer",
        ),
        ("a=" + "x" * 64, "must be no more than 63 bytes"),
    ],
)
def test_mistakes_are_told_in_kube_apiservers_words(text: str, message: str) -> None:
    with pytest.raises(StatusError) as caught:
        parse_labels(text)
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("text", "labels"),
    [("a in ()", {"a": ""}), ("a in (,b)", {"a": ""}), ("a in (b,)", {"a": ""}), ("a=,b", {"a": "", "b": "1"})],
)
def test_a_value_may_be_left_out(text: str, labels: dict[str, str]) -> None:
    assert match_labels(parse_labels(text), labels)
