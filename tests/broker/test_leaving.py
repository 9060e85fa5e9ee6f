"""An answer leaves at its pace, to somebody who is still there, and its end is recorded."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Message

from broker.api import leaving
from broker.api.leaving import Leaving, Pace
from broker.deciding import Released

RELEASED = Released(None, cast("Any", SimpleNamespace(to_json=lambda: {"event_id": "e"})))


class Caller:
    """Whoever is at the other end: what arrives there, and when they hang up."""

    def __init__(self, *, gone: bool = False, goes_at: int | None = None, breaks_at: int | None = None) -> None:
        self.gone = gone
        self.goes_at = goes_at
        self.breaks_at = breaks_at
        self.took: list[Message] = []
        self.arrives: Callable[[], Any] = lambda: None

    async def receive(self) -> Message:
        if not self.gone and self.goes_at != len(self.took):
            await asyncio.Event().wait()  # says nothing more
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if self.breaks_at == len(self.took):
            raise OSError("broken pipe")
        self.took.append(message)
        self.arrives()


def sent(caller: Caller, pace: Pace | None = None, *, shown: Any = 1) -> list[str]:
    """The ends that were recorded of one answer."""
    ends: list[str] = []

    answer = Leaving.of(
        {"shown": shown}, RELEASED, pace or Pace(time.monotonic(), 0), completed=lambda: ends.append("completed"),
        aborted=ends.append,
    )  # fmt: skip
    asyncio.run(answer({"type": "http"}, caller.receive, caller.send))
    return ends


def body(messages: Sequence[Message]) -> Any:
    return json.loads(b"".join(message.get("body", b"") for message in messages))


def test_an_answer_that_left_is_recorded_as_complete() -> None:
    caller = Caller()
    assert sent(caller) == ["completed"]
    assert body(caller.took) == {"shown": 1, "receipt": {"event_id": "e", "decisions": []}}


def test_to_a_caller_who_has_hung_up_nothing_is_sent_and_that_is_recorded() -> None:
    caller = Caller(gone=True)
    assert sent(caller) == ["not_sent"]
    assert caller.took == []


@pytest.mark.parametrize(("at", "how"), [(0, "not_sent"), (1, "broken_off")])
def test_an_answer_whose_connection_broke_is_recorded_as_broken_off(at: int, how: str) -> None:
    assert sent(Caller(breaks_at=at)) == [how]


@pytest.mark.parametrize(("at", "how"), [(1, "not_sent"), (2, "broken_off"), (3, "broken_off")])
def test_who_hangs_up_while_it_leaves_gets_no_more_of_it(at: int, how: str) -> None:
    caller = Caller(goes_at=at)
    assert sent(caller, shown="x" * 60_000) == [how]
    assert len(caller.took) == at


def test_a_long_answer_leaves_whole() -> None:
    caller = Caller()
    assert sent(caller, shown="x" * 60_000) == ["completed"]
    assert body(caller.took)["shown"] == "x" * 60_000
    assert [message.get("more_body", False) for message in caller.took[1:]] == [True, True, True, False]


class Time:
    """A clock that only work and waiting move."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.mark.parametrize("work", [0.0, 1e-6, 0.02, 0.06, 0.0999])
def test_how_long_deciding_took_does_not_show(work: float, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, caller = Time(), Caller()
    monkeypatch.setattr(leaving.time, "monotonic", clock.monotonic)
    monkeypatch.setattr(leaving.anyio, "sleep", clock.sleep)
    arrived: list[float] = []
    caller.arrives = lambda: arrived.append(clock.now - 1000)
    pace = Pace(clock.now, 0.1)
    clock.now += work
    assert sent(caller, pace) == ["completed"]
    assert arrived == pytest.approx([0.1, 0.1])


@given(work=st.floats(0, 30), step=st.floats(0.001, 2))
def test_an_answer_leaves_at_a_whole_step_after_its_question_however_long_it_took(work: float, step: float) -> None:
    clock = Time()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(leaving.time, "monotonic", clock.monotonic)
        pace = Pace(clock.now, step)
        clock.now += work
        left = pace.left()
    assert 0 < left <= step
    steps = (work + left) / step
    assert steps == pytest.approx(round(steps), abs=1e-6 / step)
