"""What waits for information governance because of a rule."""

from __future__ import annotations

from broker.store.log import FlagRow
from tests.builders_area import ANALYST, Area
from tests.builders_families import ROBIN


def test_a_search_for_a_prohibited_purpose_is_flagged_and_no_other_refusal_is(area: Area) -> None:
    analyst = area.asker(ANALYST)
    alerted = analyst.ask({**analyst.body(ROBIN.typed(), case="F1"), "purpose": "OWN_FAMILY"})
    analyst.ask({**analyst.body(ROBIN.typed(), case="F1"), "purpose": "Robin.Samplewick"})
    with area.broker.store.reading() as reading:
        flags = [(flag.event_id, flag.rule) for flag in reading.all(FlagRow)]
    assert flags == [(alerted["receipt"]["event_id"], "prohibited_purpose")]
