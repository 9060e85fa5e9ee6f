"""Ask: an encoded search; record a threshold; open the linked family view of one candidate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Path, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter

from agreements import VOCABULARY, Basis
from broker import disclosures, emergencies, register, searches, thresholds
from broker.api.answers import answer
from broker.api.forms import OneOf
from broker.api.leaving import Leaving, Pace, PaceDep
from broker.callers import Caller
from broker.deciding import Released
from broker.dependencies import (
    AgencyDep,
    KeysDep,
    NowDep,
    PersonDep,
    ServiceDep,
    SettingsDep,
    StoreDep,
    TrailDep,
    in_service,
)
from broker.emergencies import Closed, Emergency
from broker.errors import Malformed
from broker.family_view import FamilyView, Refusal
from broker.searches import Asked, SearchAnswer
from broker.store import Store
from broker.trail import Trail
from linkage.matching.search import BadRow, EncodedRow
from linkage.records import FILTERS, IDENTIFIERS, TOKENS

router = APIRouter(prefix="/v1", tags=["ask"])
__all__ = ["Body", "Code", "Opaque", "SearchBody", "ServiceDep", "in_service", "router"]

Code = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
Opaque = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
EmergencyId = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$")]
Hex256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
TokenText = Annotated[str, StringConstraints(pattern=r"^-?[0-9]{1,19}$")]
FilterText = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9+/]{86}==$")]


def _names(by_profile: Mapping[str, Iterable[str]]) -> list[str]:
    return sorted({name for names in by_profile.values() for name in names})


_SEARCH_ANSWER: Final = TypeAdapter(SearchAnswer)
_FAMILY_VIEW: Final = TypeAdapter(FamilyView)
_REFUSAL: Final = TypeAdapter(Refusal)


class Body(BaseModel):
    """Strict: an unknown member is refused, and no error quotes what was sent."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class BasisBody(Body):
    """The lawful basis the asker claims."""

    art6: Code
    condition: list[Code] = Field(default_factory=list, max_length=8)
    gateway: list[Code] = Field(default_factory=list, max_length=8)


class RowBody(Body):
    """One person as the gateway encodes them: filters, tokens, coarse attributes; nothing in clear."""

    filters: dict[Annotated[Code, OneOf(_names(FILTERS))], FilterText | None] = Field(max_length=8)
    tokens: dict[Annotated[Code, OneOf(_names(TOKENS))], TokenText | None] = Field(default_factory=dict, max_length=32)
    identifiers: dict[Annotated[Code, OneOf(IDENTIFIERS)], TokenText | None] = Field(default_factory=dict, max_length=8)
    birth_year: int | None = Field(default=None, ge=1900, le=2200)
    sex: Literal["F", "M", "I"] | None = None


class MemberBody(RowBody):
    """Someone of the household, and what they are to the child as the referral says."""

    relation: Literal["birth_parent", "step_parent", "carer", "sibling", "partner", "household"]


class SearchBody(Body):
    """A search: why, under which basis and case, and whom."""

    purpose: Code
    basis: BasisBody
    case: Hex256
    family_informed: Annotated[Code, OneOf(searches.FAMILY_INFORMED)]
    acknowledged: Literal[True]
    profile: Annotated[Code, OneOf(FILTERS)]
    key_epoch: Code
    key_fingerprint: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")]
    subject: RowBody
    household: list[MemberBody] = Field(default_factory=list, max_length=6)

    def parsed(self) -> Asked:
        """The search in the broker's own words.  Raises Malformed for a row of another format."""
        return Asked(
            purpose=self.purpose,
            basis=Basis(
                art6=self.basis.art6,
                conditions=frozenset(self.basis.condition),
                gateways=frozenset(self.basis.gateway),
            ),
            case=self.case,
            family_informed=self.family_informed,
            profile=self.profile,
            key_epoch=self.key_epoch,
            key_fingerprint=self.key_fingerprint,
            subject=_row(self.subject, "subject"),
            household=tuple(
                (member.relation, _row(member, f"household.{n}")) for n, member in enumerate(self.household)
            ),
        )


class DisclosureBody(Body):
    """Which candidate of which of one's own searches to open."""

    search: Opaque
    candidate: Opaque


class EmergencyBody(DisclosureBody):
    """Which candidate to open under broken glass, and why nobody can wait."""

    reason: Annotated[Code, OneOf(VOCABULARY.emergencies)]
    words: Annotated[str, StringConstraints(pattern=emergencies.SAID, max_length=emergencies.WORDS)]


class ThresholdBody(Body):
    """A level of need, for one candidate's case."""

    case: Hex256
    search: Opaque
    candidate: Opaque
    level: Annotated[Code, OneOf(VOCABULARY.thresholds)]
    grounds: Annotated[Code, OneOf(sorted(thresholds.GROUNDS))]


class Set(BaseModel):
    """Whether the level was recorded; if not, why."""

    level: str
    set: bool
    refusal: Refusal | None = None


class InForce(BaseModel):
    """The mark of what is in force for the caller's organisation."""

    mark: str


@router.post("/searches", status_code=201, responses={201: {"model": SearchAnswer}})
def ask(
    body: SearchBody,
    caller: PersonDep,
    store: StoreDep,
    trail: TrailDep,
    keys: KeysDep,
    service: ServiceDep,
    now: NowDep,
    pace: PaceDep,
    settings: SettingsDep,
) -> Response:
    """Who may be meant: candidates in bands, each organisation's freshness, or a refusal; with its receipt."""
    asked = body.parsed()
    released = searches.search(store, trail, keys, service, caller, asked, budgets=settings.budgets, at=now)
    ids = {"search": released.answer.search, "event_id": released.receipt.event_id}
    return Leaving.of(
        _SEARCH_ANSWER.dump_python(released.answer, mode="json"),
        released,
        pace,
        completed=partial(searches.completed, store, trail, caller, **ids),
        aborted=lambda how: searches.aborted(store, trail, caller, how, **ids),
    )


@router.post("/disclosures", status_code=201, responses={201: {"model": FamilyView}})
def disclose(
    body: DisclosureBody,
    caller: PersonDep,
    store: StoreDep,
    trail: TrailDep,
    keys: KeysDep,
    service: ServiceDep,
    now: NowDep,
    pace: PaceDep,
    settings: SettingsDep,
) -> Response:
    """What partners hold on one family: a decision per organisation and category, each with its reason."""
    released = disclosures.disclose(
        store, trail, keys, service, caller,
        search=body.search, candidate=body.candidate, budgets=settings.budgets, at=now,
    )  # fmt: skip
    return _leaving(released, store, trail, caller, pace)


@router.post("/emergencies", status_code=201, responses={201: {"model": FamilyView}})
def break_glass(
    body: EmergencyBody,
    caller: PersonDep,
    store: StoreDep,
    trail: TrailDep,
    keys: KeysDep,
    service: ServiceDep,
    now: NowDep,
    pace: PaceDep,
    settings: SettingsDep,
) -> Response:
    """The same in immediate danger, for an hour at most: what sources signed for beforehand; a person reviews it."""
    why = Emergency(reason=body.reason, words=body.words)
    released = disclosures.disclose(
        store, trail, keys, service, caller,
        search=body.search, candidate=body.candidate, budgets=settings.budgets, emergency=why, at=now,
    )  # fmt: skip
    return _leaving(released, store, trail, caller, pace)


@router.post("/emergencies/{emergency}/end", status_code=201, responses={201: {"model": Closed}})
def end_emergency(
    emergency: EmergencyId, caller: PersonDep, store: StoreDep, trail: TrailDep, now: NowDep
) -> JSONResponse:
    """Say that an emergency of one's own is over."""
    return answer(emergencies.close(store, trail, caller, emergency=emergency, at=now), caller, status=201)


@router.post("/thresholds", status_code=201, responses={201: {"model": Set}})
def set_threshold(
    body: ThresholdBody,
    caller: PersonDep,
    store: StoreDep,
    trail: TrailDep,
    keys: KeysDep,
    now: NowDep,
    pace: PaceDep,
) -> Response:
    """Record a level of need, by a role that may; anyone else is told who can."""
    released = thresholds.set_threshold(
        store, trail, keys, caller,
        case=body.case, search=body.search, candidate=body.candidate, level=body.level, grounds=body.grounds, at=now,
    )  # fmt: skip
    refusal = released.answer
    told = {} if refusal is None else {"refusal": _REFUSAL.dump_python(refusal, mode="json")}
    return Leaving.of({"level": body.level, "set": refusal is None, **told}, released, pace)


@router.get("/in-force")
def in_force(caller: AgencyDep, store: StoreDep, now: NowDep) -> InForce:
    """A mark that changes when an agreement, a restriction or an agency comes into force or goes out of it.

    A gateway that still shows an answer asks for it again when the mark is another than before it asked.
    """
    with store.reading() as reading:
        return InForce(mark=register.mark_in_force(reading, caller.organisation, at=now))


def _leaving(released: Released[FamilyView], store: Store, trail: Trail, caller: Caller, pace: Pace) -> Leaving:
    """A family view on its way; how it ended is recorded."""
    ids = {"view": released.answer.view, "event_id": released.receipt.event_id}
    return Leaving.of(
        _FAMILY_VIEW.dump_python(released.answer, mode="json", by_alias=True),
        released,
        pace,
        completed=partial(disclosures.completed, store, trail, caller, **ids),
        aborted=lambda how: disclosures.aborted(store, trail, caller, how, **ids),
    )


def _row(body: RowBody, where: str) -> EncodedRow:
    try:
        return EncodedRow.parse(body.model_dump(exclude={"relation"}))
    except BadRow as wrong:
        raise Malformed(f"{where}: {wrong}") from None
