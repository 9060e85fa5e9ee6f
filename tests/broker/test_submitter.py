"""What a submitter is told follows from what it sent alone: whoever else is known, to whomever, its answers are the same (T3)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from broker import clock, nightly, validation
from tests.broker.test_nightly import NAMES, NIGHT, a_night
from tests.builders import COUNCIL, ICB, POLICE, Batch, a_ref, an_item
from tests.builders_broker import Caller, an_installation, reception, serving
from tests.sizes import LONG

FLOWS = {COUNCIL: ("education",), ICB: ("health",), POLICE: ("police",)}
EVERYBODY, NOBODY = NAMES, ()
NIGHTS = 3 if LONG else 1
_MADE_UP = re.compile(
    r"[0-9a-f]{16,}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[A-Za-z0-9_=./+-]{40,}|\d{4}-\d\d-\d\dT[0-9:.]+Z"
)
_OF_THE_LOG = (
    "log",
    "proof",
    "opening",
    "signed",
    "event_id",
    "cosigned",
)  # its size is public, and grows with everybody


def plain(answer: Any) -> tuple[Any, ...]:
    """An answer without what is random, of the clock, or of the public log."""

    def without(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: without(one) for key, one in value.items() if key not in _OF_THE_LOG}
        if isinstance(value, list):
            return [without(one) for one in value]
        return _MADE_UP.sub("#", value) if isinstance(value, str) else value

    lines = [without(json.loads(line)) for line in answer.text.splitlines() if line.startswith(("{", "["))]
    return answer.status_code, sorted(answer.headers), lines


def conversation(folder: Path, others: tuple[str, ...], sent: Callable[[int], Batch]) -> list[tuple[Any, ...]]:
    """Everything the council is told, over some nights and what is wrong with one more, where `others` are known elsewhere."""
    told = []
    settings = an_installation(folder, agencies=FLOWS)
    with serving(settings) as http:
        broker, desk = http.app.state.broker, reception(http)  # type: ignore[attr-defined]
        council = Caller(http)
        for sequence in range(1, NIGHTS + 1):
            for agency, flow in ((ICB, "health"), (POLICE, "police")):
                if others:
                    Caller(http, agency).hand_in(a_night(agency, flow, others, sequence=sequence))
            batch = sent(sequence)
            opened = council.open(batch)
            id_ = opened.json()["batch"]
            told += [opened]
            told += [council.put(batch, id_, *chunk) for chunk in batch.chunks()]
            told += [council.commit(batch, id_)]
            validation.validate_sealed(desk)
            assert nightly.run(broker, night=NIGHT, at=clock.now())["state"] == "published"
            told += [council.on(batch, id_, what) for what in ("", "receipt?kind=received", "receipt?kind=verdict")]
            told += [council.on(batch, id_, "rejections"), council.call("GET", "/v1/flows/education")]
        bad = sent(NIGHTS + 1)
        bad = bad.with_files(items=bad.files["persons"])
        id_ = council.hand_in(bad)
        validation.validate_sealed(desk)
        told += [council.on(bad, id_), council.on(bad, id_, "rejections"), council.call("GET", "/v1/in-force")]
        told += [council.open(sent(1)), council.call("GET", "/v1/flows/health")]
    return [plain(one) for one in told]


def test_who_else_is_known_and_where_changes_no_answer_to_a_submitter(tmp_path: Path) -> None:
    record = a_ref(COUNCIL, "education", NAMES[0])
    nights = {
        sequence: a_night(
            COUNCIL, "education", NAMES[:3], sequence=sequence, items=[an_item(a_ref(at), record) for at in range(3)]
        )
        for sequence in range(1, NIGHTS + 2)
    }
    known = conversation(tmp_path / "known", EVERYBODY, nights.__getitem__)
    unknown = conversation(tmp_path / "unknown", NOBODY, nights.__getitem__)
    assert len(known) > 12
    assert known == unknown
