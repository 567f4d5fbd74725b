"""Which objects are refused, and with what words.

One module per subject, each a list of rules in upstream's order; a rule returns `FieldError`s whose paths are
relative to what it looked at. Objects must have passed `serving.api.schema.decode.check_types`, so rules need
not doubt types.
"""

from __future__ import annotations

from serving.api.config.store import ApiConfig
from serving.api.errors import ERROR, WARNING, FieldError, merged, only
from serving.api.meta import JsonObject
from serving.api.validation.kinds import validate_object

__all__ = ["validate", "warnings"]


def validate(obj: JsonObject, *, old: JsonObject | None, config: ApiConfig) -> list[FieldError]:
    """What refuses the object, merged and sorted; empty = it may be stored. `old` is None on create."""
    return merged(only(validate_object(obj, old=old, config=config), ERROR))


def warnings(obj: JsonObject, *, old: JsonObject | None, config: ApiConfig) -> list[FieldError]:
    """What the user should know although the object may be stored."""
    return merged(only(validate_object(obj, old=old, config=config), WARNING))
