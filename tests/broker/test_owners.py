"""What is another's answers as what is not there, on every route that names a thing: owner by owner, byte for byte.

Whose a thing is stands behind the door of `test_who_may`: an organisation's, or one person's of it.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import pytest

from broker.app import PUBLIC, ROUTERS
from broker.store.batches import BatchRow
from broker.store.considerations import ConsiderationRow
from tests.broker.test_considering import ROBIN, a_round
from tests.broker.test_reviews import a_machine
from tests.broker.test_who_may import MAY, PUBLIC_TOO
from tests.builders import COUNCIL, ICB, POLICE
from tests.builders_area import ANALYST, DECIDER, Area

REP: Final = "AGENCY_REP"
BATCH: Final = "/v1/flows/{flow}/batches/{thing}"
NOBODYS: Final = secrets.token_hex(16)

Body = Mapping[str, Any] | None


@dataclass(frozen=True)
class Named:
    """A route that names a thing of some kind, where in it, and in which role one asks; None: an agency's machine."""

    route: str
    kind: str
    path: str
    body: Body = None
    role: str | None = None

    def at(self, thing: str, flow: str, known: Mapping[str, str]) -> tuple[str, bytes]:
        """The request that names this one."""
        body = json.dumps(self.body).replace("{thing}", thing) if self.body else ""
        for name in ("candidate", "decided candidate", "case"):
            body = body.replace(f"{{{name}}}", known[name])
        return self.path.format(thing=thing, flow=flow), body.encode()


NAMED: Final = (
    *(
        Named(f"{method} /v1/flows/{{flow}}/batches/{{batch}}{more}", "batch", f"{BATCH}{more}", body)
        for method, more, body in (
            ("GET", "", None), ("DELETE", "", None), ("POST", "/commit", {"manifest_sha256": "0" * 64}),
            ("GET", "/receipt", None), ("GET", "/rejections", None),
        )
    ),
    Named("PUT /v1/flows/{flow}/batches/{batch}/{table}/chunks/{number}", "batch", f"{BATCH}/persons/chunks/0"),
    Named("POST /v1/disclosures", "search", "/v1/disclosures", {"search": "{thing}", "candidate": "{candidate}"}, ANALYST),
    Named(
        "POST /v1/thresholds", "decided", "/v1/thresholds",
        {"search": "{thing}", "candidate": "{decided candidate}", "case": "{case}", "level": "L4", "grounds": "significant_harm_likely"},
        DECIDER,
    ),
    Named(
        "POST /v1/emergencies", "search", "/v1/emergencies",
        {"search": "{thing}", "candidate": "{candidate}", "reason": "MISSING_NOW", "words": "No time to ask"}, ANALYST,
    ),
    Named("POST /v1/emergencies/{emergency}/end", "emergency", "/v1/emergencies/{thing}/end", {}, ANALYST),
    Named(
        "POST /v1/wrong-person", "view", "/v1/wrong-person",
        {"view": "{thing}", "what": "whole_child", "how": "knows_the_child"}, ANALYST,
    ),
    Named(
        "POST /v1/considerations/{consideration}/decision", "consideration", "/v1/considerations/{thing}/decision",
        {"decision": "declined", "reason": "detriment"}, REP,
    ),
    Named("GET /audit/events/{event_id}/proof", "event", "/audit/events/{thing}/proof"),
    Named("GET /audit/events/{event_id}/proof", "event", "/audit/events/{thing}/proof", None, ANALYST),
    Named("GET /audit/events/{event_id}/opening", "event", "/audit/events/{thing}/opening"),
    Named("GET /audit/events/{event_id}/opening", "event", "/audit/events/{thing}/opening", None, ANALYST),
)  # fmt: skip

ELSEWHERE: Final[Mapping[str, str]] = {
    "GET /v1/flows/{flow}": "a flow is an organisation's own by its token",
    "POST /v1/flows/{flow}/heartbeat": "the same",
    "POST /v1/flows/{flow}/batches": "the same",
    "GET /v1/record-questions/{reference}": "test_reviews: each agency finds its own record and no other",
    "GET /v1/statistics/releases/{release}": "a release is published to every planner and officer",
    "GET /v1/statistics/releases/{release}/csv": "the same",
}
"""Routes with a place in their path whose owners are told apart otherwise."""


def of_an_organisation(route: str) -> bool:
    """Whether somebody other than the partnership's own officers gets past its door, and it names something."""
    return "{" in route and route.partition(" ")[2] not in PUBLIC and route not in PUBLIC_TOO and bool(
        {"agency", ANALYST, DECIDER, REP, "SERVICE_PLANNER"} & set(MAY.get(route, ()))
    )  # fmt: skip


def test_every_route_that_names_a_thing_of_an_organisation_is_tried_here() -> None:
    routes = {f"{next(iter(one.methods))} {one.path}" for router in ROUTERS for one in router.routes}  # type: ignore[attr-defined]
    named = {one.route for one in NAMED}
    assert {one for one in routes if of_an_organisation(one)} - named == ELSEWHERE.keys()
    assert named <= routes


@pytest.fixture(scope="module")
def things(linked: Area) -> dict[str, str]:
    """One of each kind: of the council's machine, of an analyst of the council's, and an item of the health board's."""
    analyst = linked.asker(ANALYST, person="p-owner")
    answer = analyst.search(ROBIN.typed(), case="A8")
    view = analyst.open(answer)
    decider = linked.asker(DECIDER, person="p-owner")
    decided = decider.search(ROBIN.typed(), case="A8")
    decider.search(ROBIN.typed(), case="A9", purpose="S47")  # refused for want of a level: an item for the holder
    a_round(linked)
    with linked.broker.store.reading() as reading:
        batch = reading.all(BatchRow, agency=COUNCIL)[0]
        item = reading.all(ConsiderationRow, agency=ICB)[0]
    return {
        "search": answer["search"], "decided": decided["search"], "decided candidate": decided["candidates"][0]["candidate"],
        "view": view["view"], "emergency": analyst.break_glass(answer)["emergency"], "event": view["receipt"]["event_id"], "batch": batch.id,
        "consideration": item.id, "candidate": answer["candidates"][0]["candidate"], "flow": batch.flow,
        "case": analyst.encoder.home.case_token("A8"),
    }  # fmt: skip


def asked(
    area: Area, one: Named, thing: str, known: Mapping[str, str], agency: str, flow: str, person: str
) -> tuple[int, str]:
    """What is answered, but for the request's own id and the thing's."""
    path, body = one.at(thing, flow, known)
    method = one.route.partition(" ")[0]
    headers = a_machine(area, agency) | {"Content-Type": "application/json"}
    if "chunks" in path:
        headers["Content-Type"] = "application/vnd.apache.parquet"
    if one.role is not None:
        asker = area.asker(one.role, agency=agency, person=person)
        headers["Gateway-Assertion"] = asker.broker.assertion(asker.actor, method, path, body)
    answer = area.http.request(method, path, content=body, headers=headers)
    text = re.sub(r'"instance":"[^"]*"|"receipt":\{.*\}|"(reported|event_id)":"[^"]*"', "", answer.text)
    return answer.status_code, text.replace(thing, "")


@pytest.mark.parametrize("one", NAMED, ids=lambda one: f"{one.route} as {one.role or 'machine'}")
def test_what_is_anothers_answers_as_what_is_not_there(linked: Area, things: dict[str, str], one: Named) -> None:
    thing, flow = things[one.kind], things["flow"]
    strangers = [(POLICE, "police", "p-other"), (POLICE, flow, "p-other")]
    if one.role not in (None, REP):
        strangers.append((COUNCIL, flow, "p-other"))  # of the same organisation, and not theirs
    for agency, of, person in strangers:
        theirs, nobodys = (asked(linked, one, name, things, agency, of, person) for name in (thing, NOBODYS))
        assert theirs == nobodys, (agency, of, person)
        assert theirs[0] == 404, theirs
    owner = ICB if one.kind == "consideration" else COUNCIL
    assert asked(linked, one, thing, things, owner, flow, "p-owner")[0] != 404
