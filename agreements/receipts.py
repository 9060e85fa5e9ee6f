"""The decision receipt: enough to decide again, offline, years later.

The full receipt goes to the source, information governance and courts.  The asker's copy holds request, modes,
witnesses and duties of what is shown, and a commitment to the full one: its SHA-256, which nobody can guess, as the
full one holds a random salt.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agreements import decision as engine
from agreements import reference
from agreements.agreement import Agreement, Document, Duty
from agreements.canonical import jcs
from agreements.request import Basis, BreakGlass, Facts, Held, Link, Request, Threshold
from agreements.signing import PartyKey, open_payload, sign_payload
from agreements.snapshot import Snapshot
from agreements.verdict import Decision
from agreements.vocabulary import Mode, Vocabulary

SEMANTICS: Final = 1
ENGINE: Final = "agreements/1"
RECEIPT_TYPE: Final = "decision-receipt+json"
_MEMBERS: Final = frozenset({
    "semantics", "engine", "engine_error", "vocabulary", "agreements", "restrictions", "signed", "events", "source",
    "at", "request", "records", "salt",
})  # fmt: skip
_NOTHING: Final = object()


@dataclass(frozen=True, slots=True)
class AskerCopy:
    """What the asker keeps: JSON, tied to the full receipt by `commitment`."""

    body: Mapping[str, Any]

    def belongs_to(self, receipt: Mapping[str, Any], keys: Mapping[str, PartyKey]) -> bool:
        """Whether it is the copy of a full receipt: its commitment is to those bytes, and it says the same.

        Raises BadSignature.
        """
        payload, _ = open_payload(receipt, keys, typ=RECEIPT_TYPE)
        return self.body == _copy(_load(payload), payload)


@dataclass(frozen=True, slots=True)
class DecisionReceipt:
    """One request and source agency: `jws` is the full receipt, signed; `asker` the asker's copy."""

    jws: Mapping[str, Any]
    asker: AskerCopy


@dataclass(frozen=True, slots=True, kw_only=True)
class PastDecision:
    """What was once asked about a record, known of it, and answered."""

    request: Request
    facts: Facts
    at: datetime
    modes: Mapping[str, Mode]
    witnesses: Mapping[str, str]  # the clause cited, by category shown


def make_receipt(
    snapshot: Snapshot,
    vocabulary: Vocabulary,
    request: Request,
    decisions: Sequence[Decision],
    *,
    source: str,
    at: datetime,
    salt: bytes,
    kid: str,
    key: Ed25519PrivateKey,
    engine_error: bool = False,
) -> DecisionReceipt:
    """The receipt of the decisions of one request on one source: one a record, none where it holds no record.

    `salt` is 32 random bytes.  The order of `decisions` makes no difference.  `engine_error`: deciding failed, and
    nothing was shown.  Raises ValueError if a decision is of another request, source or instant.
    """
    if len(salt) != 32:
        raise ValueError("a salt of 32 random bytes is due")
    if any(one.request != request or one.facts.source != source or one.at != at for one in decisions):
        raise ValueError("a receipt is of one request, one source and one instant")
    named = snapshot.between(source, request.organisation)
    umbrellas = [umbrella for agreement in named if (umbrella := snapshot.umbrella(agreement))]
    restrictions = [one for one in snapshot.restrictions if one.owner == source]
    body: dict[str, Any] = {
        "semantics": SEMANTICS,
        "engine": ENGINE,
        "engine_error": engine_error,
        "vocabulary": {"ref": vocabulary.id, "sha256": vocabulary.digest},
        "agreements": {document.ref: document.digest for document in (*named, *umbrellas)},
        "restrictions": {one.ref: one.digest for one in restrictions},
        "signed": _signed(snapshot, (*named, *umbrellas, *restrictions)),
        "events": _events(snapshot, (*named, *umbrellas, *restrictions)),
        "source": source,
        "at": _stamp(at),
        "request": _request(request),
        "records": sorted((_record(one) for one in decisions), key=jcs),
        "salt": salt.hex(),
    }
    payload = jcs(body)
    jws = sign_payload(payload, typ=RECEIPT_TYPE, kid=kid, key=key, at=at.replace(microsecond=0))
    return DecisionReceipt(jws, AskerCopy(_copy(body, payload)))


def replay(
    receipt: Mapping[str, Any],
    snapshot: Snapshot,
    vocabulary: Vocabulary,
    keys: Mapping[str, PartyKey],
    *,
    slow: bool = False,
) -> tuple[str, ...]:
    """Decide again from a full receipt; the differences found, none if equal.  `slow`: by the reference evaluator.

    Only the documents, signatures and events that the receipt names are read: one handed in later, whatever its date,
    changes nothing.  Raises BadSignature if it isn't signed by one of `keys`, and ValueError if the vocabulary, or a
    document, signature or event it names isn't here, or its semantics are not ours.
    """
    payload, _ = open_payload(receipt, keys, typ=RECEIPT_TYPE)
    body = _load(payload)
    if body["semantics"] != SEMANTICS:
        raise ValueError(f"semantics {body['semantics']} are not those of this program, {SEMANTICS}")
    if body.keys() != _MEMBERS:
        return ("receipt: it says more or less than one of these semantics does",)
    if body["vocabulary"]["sha256"] != vocabulary.digest:
        raise ValueError(f"the vocabulary {body['vocabulary']['ref']} of the receipt is not the one here")
    if body["engine_error"]:
        return ("records: an engine error shows nothing",) if body["records"] else ()
    then = _then(snapshot.only({*body["agreements"].values(), *body["restrictions"].values()}), body)
    decide = reference.decide if slow else engine.decide
    request = _parse_request(body["request"])
    at = _instant(body["at"])
    differences = [] if _request(request) == body["request"] else ["request: it has what no request has"]
    for index, record in enumerate(body["records"]):
        facts = _parse_facts(record["facts"])
        if facts.source != body["source"]:
            differences.append(f"records[{index}].facts: they are of another source than the receipt")
        again = _record(decide(then, vocabulary, request, facts, at))
        differences += [
            f"records[{index}].{name}: the receipt and the decision now differ"
            for name in sorted(again.keys() | record.keys())
            if again.get(name, _NOTHING) != record.get(name, _NOTHING)
        ]
    return tuple(differences)


def _then(snapshot: Snapshot, body: Mapping[str, Any]) -> Snapshot:
    """The snapshot with the signatures and events that a receipt names, and no others."""
    documents: tuple[Document, ...] = (*snapshot.agreements, *snapshot.restrictions)
    refs = {document.digest: document.ref for document in documents}
    wanted = {(ref, party, at) for ref, parties in body["signed"].items() for party, at in parties.items()}
    happened = {(one["document"], one["party"], one["do"], one["at"]) for one in body["events"]}
    signatures = [
        one for one in snapshot.signatures if (refs.get(one.digest), one.party, _stamp(one.signed_at)) in wanted
    ]
    events = [one for one in snapshot.events if (refs.get(one.digest), one.party, one.do, _stamp(one.at)) in happened]
    found = {(refs[one.digest], one.party, _stamp(one.signed_at)) for one in signatures}
    seen = {(refs[one.digest], one.party, one.do, _stamp(one.at)) for one in events}
    if missing := {(ref, party) for ref, party, *_ in (wanted - found) | (happened - seen)}:
        ref, party = min(missing)
        raise ValueError(f"what {party} signed on {ref} is not here, as the receipt names it")
    return Snapshot.of(documents, signatures, events)


def _signed(snapshot: Snapshot, documents: Sequence[Document]) -> dict[str, dict[str, str]]:
    """When each party signed each document that a decision reads."""
    return {
        document.ref: {
            party: _stamp(at)
            for party in _entitled(document)
            if (at := snapshot.signed_at.get((party, document.digest))) is not None
        }
        for document in documents
    }


def _events(snapshot: Snapshot, documents: Sequence[Document]) -> list[dict[str, str]]:
    """What parties did since to the documents that a decision reads."""
    return [
        {"document": ref, "party": party, "do": do, "at": at}
        for ref, party, do, at in sorted(
            (document.ref, party, event.do, _stamp(event.at))
            for document in {document.digest: document for document in documents}.values()
            for party in _entitled(document)
            for event in snapshot.happened.get((party, document.digest), ())
        )
    ]


def _entitled(document: Document) -> Iterable[str]:
    return document.parties if isinstance(document, Agreement) else (document.owner,)


def source_of(receipt: Mapping[str, Any]) -> str:
    """Whose information a full receipt is about, as it says; its signature is not verified."""
    return str(_stated(receipt)["source"])


def past_decisions(receipt: Mapping[str, Any]) -> tuple[PastDecision, ...]:
    """What a full receipt says was decided, record by record.  Its signature is not verified: that is `replay`'s, and
    the broker reads back what it sealed itself."""
    body = _stated(receipt)
    request, at = _parse_request(body["request"]), _instant(body["at"])
    return tuple(
        PastDecision(
            request=request,
            facts=_parse_facts(record["facts"]),
            at=at,
            modes={category: Mode.parse(mode) for category, mode in record["modes"].items()},
            witnesses=record["witnesses"],
        )
        for record in body["records"]
    )


# --- JSON ---------------------------------------------------------------------------------------------------------


def _copy(body: Mapping[str, Any], payload: bytes) -> dict[str, Any]:
    """Request and what is shown: equal but for the commitment with and without a silent record."""
    shown = [
        {name: record[name] for name in ("modes", "witnesses", "duties", "warnings", "unconfirmed", "outcome")}
        for record in body["records"]
        if record["witnesses"]
    ]
    for record in shown:
        record["modes"] = {category: mode for category, mode in record["modes"].items() if mode != "none"}
    return {
        "semantics": body["semantics"],
        "vocabulary": body["vocabulary"],
        "source": body["source"],
        "at": body["at"],
        "request": body["request"],
        "records": sorted(shown, key=jcs),
        "commitment": hashlib.sha256(payload).hexdigest(),
    }


def _record(decision: Decision) -> dict[str, Any]:
    return {
        "facts": _facts(decision.facts),
        "modes": {category: mode.word for category, mode in decision.modes.items()},
        "witnesses": {category: str(one.under) for category, one in decision.shown.items()},
        "duties": [_duty(duty) for duty in decision.duties],
        "restrictions": list(decision.restrictions),
        "warnings": list(decision.warnings),
        "unknown": list(decision.unknown),
        "unconfirmed": decision.unconfirmed,
        "outcome": decision.outcome.value,
    }


def _duty(duty: Duty) -> dict[str, Any]:
    body: dict[str, Any] = {"do": duty.do}
    if duty.after is not None:
        body["after"] = duty.after
    if duty.within is not None:
        body["within"] = str(duty.within)
    if duty.notify:
        body["notify"] = list(duty.notify)
    if duty.working_days is not None:
        body["working_days"] = duty.working_days
    return body


def _request(request: Request) -> dict[str, Any]:
    basis, threshold, session = request.basis, request.threshold, request.break_glass
    return {
        "organisation": request.organisation,
        "role": request.role,
        "purpose": request.purpose,
        "basis": {
            "art6": basis.art6,
            "condition": sorted(basis.conditions),
            "gateway": sorted(basis.gateways),
        },
        "case": request.case,
        "threshold": {"level": threshold.level, "decided_by": threshold.decided_by} if threshold else None,
        "break_glass": {"reason": session.reason, "started": _stamp(session.started)} if session else None,
        "asked": {category: mode.word for category, mode in request.asked.items()},
    }


def _parse_request(body: Mapping[str, Any]) -> Request:
    basis, threshold, session = body["basis"], body["threshold"], body["break_glass"]
    return Request(
        organisation=body["organisation"],
        role=body["role"],
        purpose=body["purpose"],
        basis=Basis(art6=basis["art6"], conditions=frozenset(basis["condition"]), gateways=frozenset(basis["gateway"])),
        case=body["case"],
        threshold=Threshold(level=threshold["level"], decided_by=threshold["decided_by"]) if threshold else None,
        break_glass=BreakGlass(reason=session["reason"], started=_instant(session["started"])) if session else None,
        asked={category: Mode.parse(mode) for category, mode in body["asked"].items()},
    )


def _facts(facts: Facts) -> dict[str, Any]:
    return {
        "source": facts.source,
        "record": facts.record,
        "relation": facts.relation,
        "case": facts.case,
        "link": None if facts.link is None else facts.link.name.lower(),
        "tags": sorted(facts.tags),
        "tags_unknown": sorted(facts.tags_unknown),
        "held": {
            category: sorted(
                (
                    {"recorded_on": held.recorded_on.isoformat() if held.recorded_on else None, "regime": held.regime}
                    for held in several
                ),
                key=jcs,
            )
            for category, several in facts.held.items()
        },
    }


def _parse_facts(body: Mapping[str, Any]) -> Facts:
    return Facts(
        source=body["source"],
        record=body["record"],
        relation=body["relation"],
        case=body["case"],
        link=None if body["link"] is None else Link[body["link"].upper()],
        tags=frozenset(body["tags"]),
        tags_unknown=frozenset(body["tags_unknown"]),
        held={
            category: tuple(
                Held(date.fromisoformat(held["recorded_on"]) if held["recorded_on"] else None, held["regime"])
                for held in several
            )
            for category, several in body["held"].items()
        },
    )


def _stated(receipt: Mapping[str, Any]) -> dict[str, Any]:
    payload = receipt["payload"]
    return _load(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))


def _load(payload: bytes) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(payload)
    return body


def _stamp(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))
