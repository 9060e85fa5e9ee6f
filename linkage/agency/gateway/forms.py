"""Bodies of forms, read by hand: URL-encoded only, with a cap on bytes and fields, and no upload."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import parse_qsl

from fastapi import Depends, Request

BODY_BYTES = 64 * 1024
FIELDS = 400
FIELD_CHARACTERS = 2000


class BadForm(ValueError):
    """A body is not a form that one of our pages sends, or is too large."""


class Form:
    """What a form sent.  Its `repr` shows no value."""

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in pairs:
            self._values.setdefault(name, []).append(value)

    def __repr__(self) -> str:
        return f"Form({', '.join(sorted(self._values))})"

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def text(self, name: str) -> str:
        """The last value of a field, without white space around it and without control characters; empty if absent."""
        value = self._values.get(name, [""])[-1]
        return "".join(character for character in value if character.isprintable()).strip()[:FIELD_CHARACTERS]


def parse(body: bytes) -> Form:
    """A form from its bytes.  Raises BadForm.

    >>> parse(b"family_name=+O%27Hare+&purpose=S47").text("family_name")
    "O'Hare"
    """
    try:
        return Form(parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=FIELDS, errors="strict"))
    except ValueError:
        raise BadForm("the form could not be read") from None


async def _form(request: Request) -> Form:
    if request.headers.get("content-type", "").split(";")[0].strip() != "application/x-www-form-urlencoded":
        raise BadForm("only a form of these pages is taken here")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_BYTES:
            raise BadForm("the form is too large")
    return parse(bytes(body))


FormDep = Annotated[Form, Depends(_form)]
"""The form that was posted.  Raises BadForm."""
