"""How an answer leaves: at its pace, to somebody who is still there, and with its end recorded."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Final

import anyio
from anyio.to_thread import run_sync
from fastapi import Depends
from fastapi.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from broker.deciding import Released
from broker.dependencies import SettingsDep
from broker.ledger import Broken

End = Callable[[], None]
PART: Final = 16_384  # bytes of an answer between two looks whether the caller is still there


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
    """A recorded answer.  Afterwards `completed` is called, or `aborted` if it was not taken: with "not_sent" where
    nothing of the answer has left, with "broken_off" where a part may have arrived."""

    @classmethod
    def of(
        cls,
        content: dict[str, Any],
        released: Released[Any],
        pace: Pace,
        *,
        completed: End | None = None,
        aborted: Callable[[Broken], None] | None = None,
    ) -> Leaving:
        """The answer with its receipt."""
        receipt = {**released.receipt.to_json(), "decisions": list(released.decisions)}
        leaving = cls({**content, "receipt": receipt}, status_code=201)
        leaving.pace, leaving.completed, leaving.aborted = pace, completed, aborted
        return leaving

    pace: Pace
    completed: End | None
    aborted: Callable[[Broken], None] | None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Wait, send as long as the caller is there, and record the end."""
        await anyio.sleep(self.pace.left())
        broken = await self._sent(receive, send)
        if broken is None:
            await _call(self.completed)
        elif self.aborted is not None:
            await _call(partial(self.aborted, broken))

    async def _sent(self, receive: Receive, send: Send) -> Broken | None:
        """Send, part by part: a server takes what is meant for a caller who has hung up and says nothing."""
        if await _gone(receive):
            return "not_sent"
        broken: Broken = "not_sent"
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            for start in range(0, len(self.body), PART):
                if await _gone(receive):
                    return broken
                broken = "broken_off"
                part = bytes(self.body[start : start + PART])
                await send({"type": "http.response.body", "body": part, "more_body": start + PART < len(self.body)})
        except OSError:  # the connection broke: how much has arrived nobody knows
            return broken
        return None


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
