"""Events as FHIR R4 AuditEvent, in the shape of IHE's Basic Audit Log Patterns (BALP) where one fits.

A disclosure is BALP's `PrivacyDisclosure.Source`: DICOM 110106 Export, subtype ISO 21089 disclose, with the broker as
source agent, the recipient's organisation and the person who asked; one AuditEvent for each person shown, since the
pattern takes exactly one patient.  All else is a plain AuditEvent of the nearest DICOM type.  A subtype is always
our own type.  All identifiers are the log's tokens: nothing refers to a Patient that could be fetched.
Sources: HL7 FHIR R4 (4.0.1) AuditEvent; IHE ITI BALP 1.1.4; DICOM PS3.16 context groups 400 to 402; IHE ITI-81.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from agreements import VOCABULARY
from audit.events import OPS, Op
from broker.reports.reading import holders, persons
from broker.reports.table import OpenedEvent, utc

DCM: Final = "http://dicom.nema.org/resources/ontology/DCM"
LIFECYCLE: Final = "http://terminology.hl7.org/CodeSystem/iso-21089-lifecycle"
ENTITY_TYPE: Final = "http://terminology.hl7.org/CodeSystem/audit-entity-type"
OBJECT_ROLE: Final = "http://terminology.hl7.org/CodeSystem/object-role"
SOURCE_TYPE: Final = "http://terminology.hl7.org/CodeSystem/security-source-type"
SNOMED: Final = "http://snomed.info/sct"
DATE: Final = (
    r"^(eq|ge|gt|le|lt)?[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"(T[0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?(Z|[+-][0-9]{2}:[0-9]{2}))?$"
)
OURS: Final = "urn:safeguarding-broker"
DISCLOSURE: Final = "https://profiles.ihe.net/ITI/BALP/StructureDefinition/IHE.BasicAudit.PrivacyDisclosure.Source"

EXPORT: Final = ("110106", "Export")
RECORD: Final = ("110110", "Patient Record")
ACTIVITY: Final = ("110100", "Application Activity")
TYPES: Final[Mapping[str, tuple[str, str]]] = {
    Op.COLLECTION: ("110107", "Import"), Op.ALTERATION: RECORD, Op.CONSULTATION: ("110112", "Query"),
    Op.DISCLOSURE: EXPORT, Op.COMBINATION: RECORD, Op.ERASURE: RECORD, Op.SYSTEM: ACTIVITY,
}  # fmt: skip
"""The DICOM type of an operation of section 62."""
AUTHENTICATION: Final = ("110114", "User Authentication")
LOG_USED: Final = ("110101", "Audit Log Used")
SUBTYPES: Final = {"auth.login": ("110122", "Login"), "auth.logout": ("110123", "Logout")}
ACTIONS: Final[Mapping[str, str]] = {
    Op.COLLECTION: "C", Op.ALTERATION: "U", Op.CONSULTATION: "E", Op.DISCLOSURE: "R", Op.COMBINATION: "E",
    Op.ERASURE: "D", Op.SYSTEM: "E",
}  # fmt: skip
REFUSED: Final = ("refused", "denied", "declined", "rejected", "quarantined")
FAILED: Final = ("run_failed", "aborted", "degraded", "conflict", "anomaly", "discontinuity", "compromised")


def resources(one: OpenedEvent, *, origin: str) -> Iterator[dict[str, Any]]:
    """An event as AuditEvents: one for each person shown by a disclosure, else one.  `origin`: the log's."""
    subjects = one.texts("subjects")
    whom = persons(subjects) or subjects
    categories = one.body("what").get("categories")
    shown = categories if isinstance(categories, Mapping) else {}
    if one.event.type == "disclosure.authorised" and whom and shown:
        for number, person in enumerate(whom):
            yield _disclosure(one, person, shown, origin=origin, suffix=f"-{number}" if number else "")
    else:
        yield _plain(one, whom, origin=origin)


def all_dicom_types() -> tuple[str, ...]:
    """The codes of the DICOM types that our events bear."""
    return tuple(sorted({_type_of(name, op)[0] for name, op in OPS.items()}))


def token_of(system: str, codes: Iterable[str]) -> str:
    """The pattern of a FHIR token: one of the codes, with the system or without one."""
    return rf"^(({re.escape(system)})?\|)?({'|'.join(map(re.escape, codes))})$"


def dicom_types(code: str) -> tuple[str, ...]:
    """The types of events that bear a DICOM type's code, for a search by `type`; none for a code we never give."""
    return tuple(sorted(name for name in OPS if _type_of(name, OPS[name])[0] == code))


def types_of_outcome(outcome: str) -> tuple[str, ...]:
    """The types of events of an outcome, for a search by `outcome`."""
    return tuple(sorted(name for name in OPS if outcome_of(name) == outcome))


def outcome_of(event_type: str) -> str:
    """FHIR's outcome: 0 success, 4 minor failure (refused), 8 serious failure."""
    ending = event_type.partition(".")[2]
    return "4" if ending in REFUSED else "8" if ending in FAILED else "0"


def searchset(events: Sequence[OpenedEvent], *, origin: str, self_link: str, next_link: str | None) -> dict[str, Any]:
    """A page of a search as a Bundle."""
    entries = [
        {"fullUrl": f"{OURS}:event:{resource['id']}", "resource": resource, "search": {"mode": "match"}}
        for one in events
        for resource in resources(one, origin=origin)
    ]
    links = [{"relation": "self", "url": self_link}, *([{"relation": "next", "url": next_link}] if next_link else [])]
    bundle = {"resourceType": "Bundle", "type": "searchset", "link": links}
    return {**bundle, "entry": entries} if entries else bundle


def _disclosure(one: OpenedEvent, person: str, shown: Mapping[str, Any], *, origin: str, suffix: str) -> dict[str, Any]:
    # One holder is BALP's custodian, which it takes once at most; several are agents of a type of ours.
    kind = _coding(SNOMED, "159541003", "Record keeping/library clerk") if len(shown) == 1 else _ours("agent", "holder")
    custodians = [
        {"type": {"coding": [kind]}, "who": _named("organisation", holder), "requestor": False} for holder in shown
    ]
    return {
        **_head(one, suffix),
        "meta": {"profile": [DISCLOSURE]},
        "agent": [*_agents(one, origin=origin), *custodians],
        "source": _source(origin),
        "entity": [
            {
                "what": _named("person", person), "type": _coding(ENTITY_TYPE, "1", "Person"),
                "role": _coding(OBJECT_ROLE, "1", "Patient"),
            },
            *(
                {
                    "what": _named("information-of", holder), "type": _coding(ENTITY_TYPE, "2", "System Object"),
                    "role": _coding(OBJECT_ROLE, "4", "Domain Resource"),
                    "detail": [{"type": name, "valueString": str(mode)} for name, mode in sorted(modes.items())],
                }
                for holder, modes in sorted(shown.items())
            ),
            *_case(one),
        ],
    }  # fmt: skip


def _plain(one: OpenedEvent, whom: Sequence[str], *, origin: str) -> dict[str, Any]:
    entities = [
        {
            "what": _named("person" if "/" not in person else "record", person),
            "type": _coding(ENTITY_TYPE, "1", "Person"), "role": _coding(OBJECT_ROLE, "1", "Patient"),
        }
        for person in whom
    ] + [
        {
            "what": _named("information-of", holder), "type": _coding(ENTITY_TYPE, "3", "Organization"),
            "role": _coding(OBJECT_ROLE, "4", "Domain Resource"),
        }
        for holder in holders(one.texts("subjects"))
    ]  # fmt: skip
    found = {**_head(one, ""), "agent": _agents(one, origin=origin), "source": _source(origin)}
    entities += _case(one)
    return {**found, "entity": entities} if entities else found


def _head(one: OpenedEvent, suffix: str) -> dict[str, Any]:
    event = one.event
    subtypes = [_ours("event", event.type)]
    if event.type in SUBTYPES:
        subtypes.append(_coding(DCM, *SUBTYPES[event.type]))
    if event.op == Op.DISCLOSURE:
        subtypes.append(_coding(LIFECYCLE, "disclose", "Disclose Record Lifecycle Event"))
    head = {
        "resourceType": "AuditEvent",
        "id": f"{event.event_id.replace('_', '.')}{suffix}",
        "type": _coding(DCM, *_type_of(event.type, event.op)),
        "subtype": subtypes,
        "action": ACTIONS[event.op],
        "recorded": utc(event.at),
        "outcome": outcome_of(event.type),
    }
    if event.outcome:
        head["outcomeDesc"] = event.outcome
    if event.purpose:
        purpose = VOCABULARY.purposes.get(event.purpose)
        label = purpose.label if purpose is not None else event.purpose
        head["purposeOfEvent"] = [{"coding": [_ours("purpose", event.purpose) | {"display": label}]}]
    return head


def _agents(one: OpenedEvent, *, origin: str) -> list[dict[str, Any]]:
    """The broker; who asked, as a person or, where none acts, as an organisation; the organisations that received."""
    event = one.event
    policy = [f"{OURS}:agreement:{clause}" for clause in one.body("why").get("clauses") or ()]
    asker = _named("staff", event.person) if event.person else _named("organisation", event.organisation or "-")
    requestor: dict[str, Any] = {"who": asker, "requestor": True, **({"policy": policy} if policy else {})}
    if event.role:
        requestor["role"] = [{"coding": [_ours("role", event.role)]}]
    agents = [
        {
            "type": {"coding": [_coding(DCM, "110153", "Source Role ID")]}, "who": _broker(origin),
            "requestor": False, "network": {"address": origin.partition("/")[0], "type": "1"},
        },
        requestor,
    ]  # fmt: skip
    received = dict.fromkeys(str(each.get("organisation", "")) for each in one.recipients)
    return agents + [
        {
            "type": {"coding": [_coding(DCM, "110152", "Destination Role ID")]}, "who": _named("organisation", each),
            "requestor": False, "network": {"address": f"{OURS}:organisation:{each}", "type": "5"},
        }
        for each in received
        if each
    ]  # fmt: skip


def _case(one: OpenedEvent) -> list[dict[str, Any]]:
    if not one.event.case:
        return []
    return [
        {
            "what": _named("case", one.event.case), "type": _coding(ENTITY_TYPE, "2", "System Object"),
            "role": _coding(OBJECT_ROLE, "20", "Job"),
        }
    ]  # fmt: skip


def _type_of(event_type: str, op: str) -> tuple[str, str]:
    noun = event_type.partition(".")[0]
    return AUTHENTICATION if noun == "auth" else LOG_USED if noun == "audit" else TYPES[op]


def _source(origin: str) -> dict[str, Any]:
    return {"observer": _broker(origin), "type": [_coding(SOURCE_TYPE, "4", "Application Server")]}


def _broker(origin: str) -> dict[str, Any]:
    return _named("log", origin)


def _named(kind: str, value: str) -> dict[str, Any]:
    return {"identifier": {"system": f"{OURS}:{kind}", "value": value}}


def _ours(kind: str, code: str) -> dict[str, str]:
    return {"system": f"{OURS}:{kind}", "code": code}


def _coding(system: str, code: str, display: str) -> dict[str, str]:
    return {"system": system, "code": code, "display": display}
