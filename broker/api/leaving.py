"""How an answer leaves: at its pace, to somebody who is still there, and with its end recorded."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import anyio
from anyio.to_thread import run_sync
from fastapi import Depends
from fastapi.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from broker.deciding import Released
from broker.dependencies import SettingsDep

End = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Pace:
    """Answers leave at whole multiples of a step after their question came, so that the time tells next to nothing of
    how many records were looked at, shown or hidden."""

    came: float
    step: float  # seconds

    def left(self) -> float:
        """Seconds until the answer may leave."""
        return self.step - (time.monotonic() - self.came) % self.step if self.step else 0.0


def _pace(settings: SettingsDep) -> Pace:
    return Pace(time.monotonic(), settings.pace_ms / 1000)


PaceDep = Annotated[Pace, Depends(_pace)]


class Leaving(JSONResponse):
    """A recorded answer.  Afterwards `completed` is called, or `aborted` if nobody was there to take it."""

    @classmethod
    def of(
        cls,
        content: dict[str, Any],
        released: Released[Any],
        pace: Pace,
        *,
        completed: End | None = None,
        aborted: End | None = None,
    ) -> Leaving:
        """The answer with its receipt."""
        receipt = {**released.receipt.to_json(), "decisions": list(released.decisions)}
        leaving = cls({**content, "receipt": receipt}, status_code=201)
        leaving.pace, leaving.completed, leaving.aborted = pace, completed, aborted
        return leaving

    pace: Pace
    completed: End | None
    aborted: End | None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Wait, look whether the caller is still there, send, and record the end."""
        await anyio.sleep(self.pace.left())
        if await _gone(receive):
            await _call(self.aborted)
            return
        try:
            await super().__call__(scope, receive, send)
        except OSError:  # the connection broke: how much has arrived nobody knows
            return
        await _call(self.completed)


async def _gone(receive: Receive) -> bool:
    """Whether the caller has hung up; does not wait."""
    message: dict[str, Any] = {}
    with anyio.CancelScope() as scope:
        scope.cancel()
        message = dict(await receive())
    return message.get("type") == "http.disconnect"


async def _call(end: End | None) -> None:
    if end is not None:
        await run_sync(end)
