"""Ask as a person at a gateway does: what was typed is encoded there, and the broker is told who asks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from linkage.agency import clock
from linkage.agency.client import Tokens, client_jwk
from linkage.agency.gateway.broker_client import Actor, BrokerClient
from linkage.agency.gateway.encoder import SearchEncoder
from linkage.agency.gateway.typed import Typed, TypedPerson
from linkage.agency.settings import Home


@dataclass(frozen=True)
class Analyst:
    """One person, at one organisation's gateway: who asks, or reads what their organisation is to consider."""

    encoder: SearchEncoder
    broker: BrokerClient
    actor: Actor

    @classmethod
    def of(cls, home: Path, person: str, role: str) -> Analyst:
        """Someone of the organisation whose home this is."""
        opened = Home(home)
        http = httpx2.Client(timeout=30, follow_redirects=False)
        url = opened.settings.broker
        client = BrokerClient(
            url, agency=opened.agency, key=client_jwk(opened), kid=opened.client_kid,
            token=Tokens(opened, http, now=clock.now, broker=url), now=clock.now, http=http,
        )  # fmt: skip
        return cls(SearchEncoder(opened), client, Actor(person=person, role=role, sid="demo"))

    def search(self, child: dict[str, Any], *, purpose: str, case: str = "SAMPLE-0412") -> dict[str, Any]:
        """The broker's answer to what an analyst would type of this child."""
        year, month, day = child["date_of_birth"].split("-")
        typed = Typed(
            child=TypedPerson(
                given_name=child["given_name"], family_name=child["family_name"], day=day, month=month, year=year,
                postcode=child["postcode"], sex=child["sex"], nhs_number=child.get("nhs_number") or "",
            ),
            case_reference=case, purpose=purpose, told="yes", acknowledged=True,
        )  # fmt: skip
        _, answer = self.broker.search(self.encoder.search(typed, today=clock.now().date()), self.actor)
        return answer

    def to_consider(self) -> list[dict[str, Any]]:
        """What the organisation is to consider: records of its own that somebody asked about and was not shown."""
        found: list[dict[str, Any]] = self.broker.considerations(self.actor)["considerations"]
        return found

    def view(self, child: dict[str, Any], *, purpose: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """The search, and the family view of its only match.  Raises LookupError if there is not exactly one."""
        answer = self.search(child, purpose=purpose)
        matches = [candidate for candidate in answer["candidates"] if candidate["band"] == "match"]
        if len(matches) != 1:
            raise LookupError(f"{len(matches)} matches: {answer['refusals']}")
        _, view = self.broker.disclose(answer["search"], matches[0]["candidate"], self.actor)
        return answer, view
