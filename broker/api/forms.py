"""What the API's description says of a text beyond its form: the closed list that a use case holds it to."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import GetJsonSchemaHandler
from pydantic.config import JsonDict
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

CLOSED: Final[JsonDict] = {"additionalProperties": False}
"""Of an object with names by a pattern: no others."""


@dataclass(frozen=True, slots=True)
class OneOf:
    """A closed list, from the constant that the use case checks with: it is the one that refuses what is not there."""

    codes: Iterable[str]
    blank: bool = False  # the empty text, too: nothing asked

    def __post_init__(self) -> None:
        object.__setattr__(self, "codes", tuple(self.codes))  # that it can be hashed

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        known = {name: value for name, value in handler(core).items() if name in ("title", "description", "default")}
        return {**known, "type": "string", "enum": [*([""] if self.blank else []), *self.codes]}


@dataclass(frozen=True, slots=True)
class Like:
    """A form, from the pattern that the use case checks the whole text with."""

    pattern: re.Pattern[str]
    blank: bool = False

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {**handler(core), "pattern": f"^({self.pattern.pattern}){'?' if self.blank else ''}$"}


def taken(media: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """A body that a route reads by itself: its schema, by media type."""
    return {"requestBody": {"required": True, "content": {name: {"schema": one} for name, one in media.items()}}}


def in_query(name: str, schema: dict[str, Any], words: str, *, required: bool = False) -> dict[str, Any]:
    """A query parameter that a route reads by itself."""
    return {"name": name, "in": "query", "required": required, "schema": schema, "description": words}
