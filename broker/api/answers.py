"""What a use case released, as the body of an answer: its value, its receipt, and a signed-in person's token."""

from __future__ import annotations

from functools import cache
from typing import Any

from fastapi.responses import JSONResponse
from pydantic import TypeAdapter

from broker.callers import Caller
from broker.deciding import Released


def plain(value: Any) -> Any:
    """A use case's dataclass as plain JSON."""
    return _adapter(type(value)).dump_python(value, mode="json")  # type: ignore[arg-type]  # a class is hashable


def answer(released: Released[Any], caller: Caller, *, status: int = 200) -> JSONResponse:
    """The value with its receipt, and for an officer the session's token, which whatever changes something carries."""
    csrf = {"csrf": caller.csrf} if caller.csrf else {}
    content = {**plain(released.answer), **csrf, "receipt": released.receipt.to_json()}
    return JSONResponse(content, status_code=status)


@cache
def _adapter(kind: type) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
