"""When two objects mean the same, and what differs when they do not.

The canonical form drops what Go drops on decoding: nulls, zero values of fields that are no pointers, empty lists
and maps; quantities become numbers. Unknown fields stay, so a change of one still counts as a change.
"""

from __future__ import annotations

from typing import Any

from serving.api.quantity import QuantityError, parse_quantity
from serving.api.schema.nodes import Array, Dictionary, Field, Node, Opaque, Scalar, Special, Struct


def without_nulls(node: Node, value: Any) -> Any:
    """A deep copy in which null fields are absent and null items of a list are empty, as Go decodes them."""
    if isinstance(node, Struct):
        if not isinstance(value, dict):
            return {} if value is None else copy(value)
        out = {}
        for key, inner in value.items():
            item = node.fields.get(key)
            if item is None:
                out[key] = copy(inner)
            elif inner is not None:
                out[key] = without_nulls(item.node, inner)
        return out
    if isinstance(node, Array) and isinstance(value, list):
        return [without_nulls(node.item, item) for item in value]
    if isinstance(node, Dictionary) and isinstance(value, dict):
        return {key: without_nulls(node.value, inner) for key, inner in value.items()}
    if value is None and isinstance(node, Scalar):
        return _ZERO[node.kind]
    return copy(value)


_ZERO = {"string": "", "bool": False, "int32": 0, "int64": 0, "float64": 0.0}


def with_required(node: Node, value: Any) -> Any:
    """A copy in which fields that Go always encodes are present, with Go's zero value: what the schema requires is
    there after the mutating webhook, so that the validating one words the refusal."""
    if isinstance(node, Struct) and isinstance(value, dict):
        out = {
            key: with_required(node.fields[key].node, inner) if key in node.fields else inner
            for key, inner in value.items()
        }
        for key in node.required:
            if out.get(key) is None:
                out[key] = _zero(node.fields[key].node)
        return out
    if isinstance(node, Array) and isinstance(value, list):
        return [with_required(node.item, item) for item in value]
    if isinstance(node, Dictionary) and isinstance(value, dict):
        return {key: with_required(node.value, inner) for key, inner in value.items()}
    return value


def _zero(node: Node) -> Any:
    if isinstance(node, Scalar):
        return _ZERO[node.kind]
    return with_required(node, {}) if isinstance(node, Struct) else None


def copy(value: Any) -> Any:
    """Deep copy of a JSON value."""
    if isinstance(value, dict):
        return {key: copy(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [copy(item) for item in value]
    return value


def canonical(node: Node, value: Any) -> Any:
    """The value as far as it means something; comparable with `==`."""
    if isinstance(node, Struct) and isinstance(value, dict):
        out = {}
        for key, inner in value.items():
            item = node.fields.get(key)
            if item is None:
                if inner is not None:
                    out[key] = inner
                continue
            form = canonical(item.node, inner)
            if _means_something(item, form):
                out[key] = form
        return out
    if isinstance(node, Array) and isinstance(value, list):
        return [canonical(node.item, item) for item in value]
    if isinstance(node, Dictionary) and isinstance(value, dict):
        return {key: canonical(node.value, inner) for key, inner in value.items()}
    if isinstance(node, Special) and node.kind == "quantity" and isinstance(value, str | int | float):
        try:
            return parse_quantity(value)
        except QuantityError:
            return value
    return value


def same(node: Node, left: Any, right: Any) -> bool:
    return bool(canonical(node, left) == canonical(node, right))


def short_diff(node: Struct, old: Any, new: Any, *, root: str) -> str:
    """What changed, one block per changed field in Knative's layout; empty when both mean the same.

    {*v1.RevisionTemplateSpec}.Spec.PodSpec.Containers[0].Image:
    \t-: "old"
    \t+: "new"
    """
    blocks: list[str] = []
    _diff(Field(node), canonical(node, old), canonical(node, new), root, blocks)
    return "".join(blocks)


def _diff(item: Field, old: Any, new: Any, path: str, blocks: list[str]) -> None:
    if old == new:
        return
    node = item.node
    if isinstance(node, Struct) and _both(dict, old, new, nothing=not item.pointer):
        _diff_fields(node, old or {}, new or {}, path, blocks)
    elif isinstance(node, Array) and _both(list, old, new, nothing=False):
        for index in range(max(len(old), len(new))):
            if index >= len(old):
                blocks.append(_block(f"{path}[?->{index}]", None, _show(new[index])))
            elif index >= len(new):
                blocks.append(_block(f"{path}[{index}->?]", _show(old[index]), None))
            else:
                _diff(Field(node.item), old[index], new[index], f"{path}[{index}]", blocks)
    elif isinstance(node, Dictionary) and _both(dict, old, new, nothing=False):
        for key in sorted(old.keys() | new.keys()):
            step = f'{path}["{key}"]'
            if key in old and key in new:
                _diff(Field(node.value), old[key], new[key], step, blocks)
            else:
                sides = (_show(side[key]) if key in side else None for side in (old, new))
                blocks.append(_block(step, *sides))
    elif item.pointer and old is not None and new is not None:
        blocks.append(_block(f"*{path}", _show(old), _show(new)))
    else:
        nothing = _nothing(item)
        blocks.append(_block(path, nothing if old is None else _show(old), nothing if new is None else _show(new)))


def _diff_fields(node: Struct, old: dict[str, Any], new: dict[str, Any], path: str, blocks: list[str]) -> None:
    for key in (*node.fields, *sorted((old.keys() | new.keys()) - node.fields.keys())):
        item = node.fields.get(key, Field(Opaque("")))
        _diff(item, old.get(key), new.get(key), f"{path}.{_go_path(key, item)}", blocks)


def _nothing(item: Field) -> str | None:
    """How Go prints the absent value; None where it prints nothing."""
    if item.pointer:
        return "nil" if isinstance(item.node, Struct | Opaque) else "<nil>"
    if isinstance(item.node, Array):
        return "[]"
    if isinstance(item.node, Scalar):
        return _show(_ZERO[item.node.kind])
    return "map[]" if isinstance(item.node, Dictionary) else None


def _both(kind: type, old: Any, new: Any, *, nothing: bool) -> bool:
    return all(isinstance(value, kind) or (nothing and value is None) for value in (old, new))


def _block(path: str, old: str | None, new: str | None) -> str:
    text = f"{path}:\n"
    if old is not None:
        text += f'\t-: "{old}"\n'
    if new is not None:
        text += f'\t+: "{new}"\n'
    return text


def _show(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + " ".join(_show(item) for item in value) + "]"
    if isinstance(value, dict):
        return "map[" + " ".join(f"{key}:{_show(value[key])}" for key in sorted(value)) + "]"
    return str(value)


def _go_path(key: str, item: Field) -> str:
    name = item.go or key[:1].upper() + key[1:]
    return f"{item.via}.{name}" if item.via else name


def _means_something(item: Field, form: Any) -> bool:
    if form is None:
        return False
    if isinstance(item.node, Array | Dictionary):
        return bool(form)
    return item.pointer or bool(form)
