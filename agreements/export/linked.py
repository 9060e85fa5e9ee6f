"""Names on the web of what documents say: our own safeguarding extension of ODRL and DPV, and its terms as JSON-LD.

DPV 2.x has no child protection among its purposes and only three concepts for Great Britain, so what it lacks is ours,
tied to its nearest by `skos:broadMatch`.  Articles of the UK GDPR keep the numbers of the EU's: `skos:closeMatch`.

The namespace is a placeholder under the reserved domain `.example` until a partnership publishes it.
Source: W3C ODRL 2.2; DPV 2.3 with its extension eu-gdpr; SKOS.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from agreements.agreement import london_midnight
from agreements.request import Link
from agreements.vocabulary import CASEWORK, FROM_COMMENCEMENT, RECORD, Mode, Purpose, Term, Vocabulary

NAMESPACE: Final = "https://data-sharing-agreements.example/uk-safeguarding/"
PROFILE: Final = f"{NAMESPACE}profile"

LISTS: Final = (
    "action", "agreement", "basis", "category", "condition", "duty", "gateway", "link", "party", "purpose", "relation",
    "restriction", "role", "tag", "threshold",
)  # fmt: skip
_IRIS: Final = (
    "assignee", "assigner", "action", "conflict", "inheritFrom", "includedIn", "leftOperand", "operator", "partOf",
    "profile", "target",
)  # fmt: skip

CONTEXT: Final[Mapping[str, Any]] = {
    "odrl": "http://www.w3.org/ns/odrl/2/",
    "dpv": "https://w3id.org/dpv#",
    "eu-gdpr": "https://w3id.org/dpv/legal/eu/gdpr#",
    "dct": "http://purl.org/dc/terms/",
    "skos": "http://www.w3.org/2004/02/skos/core#",
    "xsd": "http://www.w3.org/2001/XMLSchema#",
    "dsa": f"{NAMESPACE}dsa#",
    **{name: {"@id": f"{NAMESPACE}{name}/", "@prefix": True} for name in LISTS},
    "uid": "@id",
    "type": "@type",
    **{f"odrl:{name}": {"@type": "@id"} for name in _IRIS},
    **{f"skos:{name}": {"@type": "@id"} for name in ("broader", "broadMatch", "closeMatch", "inScheme")},
}
"""Written into every export, so that nothing is fetched to read one."""

MATCHES: Final[Mapping[str, tuple[str, ...]]] = {
    "basis:consent": ("eu-gdpr:A6-1-a", "dpv:Consent"),
    "basis:legal_obligation": ("eu-gdpr:A6-1-c", "dpv:LegalObligation"),
    "basis:vital_interests": ("eu-gdpr:A6-1-d", "dpv:VitalInterest"),
    "basis:public_task": ("eu-gdpr:A6-1-e", "dpv:PublicInterest"),
    "basis:legitimate_interests": ("eu-gdpr:A6-1-f", "dpv:LegitimateInterest"),
    "condition:dpa18-sch1-18": ("eu-gdpr:A9-2-g",),
    "condition:dpa18-sch1-2": ("eu-gdpr:A9-2-h",),
    "condition:dpa18-sch1-6": ("eu-gdpr:A9-2-g",),
    "condition:dpa18-sch1-4": ("eu-gdpr:A9-2-j",),
    "condition:art9-vital": ("eu-gdpr:A9-2-c",),
}
"""The same law by DPV's name; the recognised legitimate interest of 2025 has none."""

NEAREST: Final[Mapping[str, str]] = {
    "purpose:EMERGENCY": "dpv:ProtectionOfPublicSecurity",
    "purpose:CHILD_PROTECTION": "dpv:ProtectionOfPublicSecurity",
    "purpose:CME": "dpv:LegalCompliance",
    "purpose:ENCOMPASS": "dpv:LegalCompliance",
    "purpose:IG_AUDIT": "dpv:LegalCompliance",
    "purpose:SUBJECT_RIGHTS": "dpv:LegalCompliance",
    "basis:recognised_legitimate_interest": "dpv:LegitimateInterest",
}
"""The next wider concept of DPV; every other purpose is `dpv:PublicBenefit`."""

_ODRL_DUTIES: Final = {
    "NOTIFY": "odrl:inform",
    "NOTIFY_CUSTODIAN": "odrl:inform",
    "NOTIFY_IG": "odrl:inform",
    "DELETE": "odrl:delete",
    "WATERMARK": "odrl:watermark",
}

OPERANDS: Final[Mapping[str, str]] = {
    "role": "The role of whoever asks.",
    "purposeOverlap": "The purpose asked for, with every purpose that is narrower or wider: all that it overlaps.",
    "basis": "The Article 6 basis relied on; one that is closed to public authorities is none of theirs.",
    "gateway": "The statutes relied on; one counts from its `dsa:inForceFrom` on, and not while `dsa:notInForce`.",
    "condition": "The Article 9 or Schedule 1 conditions relied on; met where the category needs none in that mode.",
    "relation": "How the record's person stands to the child asked about; unknown: not met.",
    "case": "The case reference given; `dsa:subjectCase` is the one that the child is known by.",
    "threshold": "The threshold that an authorised decision-maker recorded.",
    "link": "How surely the record is about the person asked about; unknown: not met.",
    "window": "How long ago the item was recorded, in London days; unknown: not met.",
    "regime": "The item's regime, GENERAL or LE (law enforcement); LE or unknown: met only where a statute named"
    " counts, as under `dsa:gateway`; a bare hit without items: met.",
    "breakGlass": "For how long an emergency session, with its reason, has run; no session: not met.",
    "lifted": "Whether an emergency session runs, which is for an hour at most.",
    "recordRef": "The record; an unknown one is taken for the one named.",
    "tag": "What protects the record; an unknown tag is taken for present.",
}
"""Our left operands, each with what an evaluator must take it for."""


def vocabulary_jsonld(vocabulary: Vocabulary) -> dict[str, Any]:
    """The extension with one version of the lists: every term, how they nest, what they cap, the baseline.

    With it and an exported agreement an ODRL evaluator needs nothing else of ours.
    """
    scheme = {
        "uid": PROFILE,
        "type": ["skos:ConceptScheme", "odrl:Profile"],
        "dct:identifier": vocabulary.id,
        "dsa:digest": vocabulary.digest,
        "dct:description": (
            "One clause alone must meet every constraint; a prohibition applies by overlap and where a fact is unknown;"
            " a mode is shown only as far as purpose and link allow.  Whoever discloses must disclose that sector."
        ),
    }
    graph = [
        scheme,
        *_operands(),
        *_actions(),
        *_categories(vocabulary),
        *(_purpose(purpose) for purpose in vocabulary.purposes.values()),
        *_links(),
        *_lists(vocabulary),
        {
            "uid": "dsa:baseline",
            "type": "odrl:Set",
            "odrl:profile": PROFILE,
            "odrl:conflict": "odrl:prohibit",
            "odrl:prohibition": [
                prohibition(
                    f"dsa:{rule.id}", rule.text, categories=rule.categories, at_most=rule.at_most, tag=rule.tag
                )
                for rule in vocabulary.baseline
            ],
        },
    ]  # fmt: skip
    return {"@context": dict(CONTEXT), "@graph": graph}


def up_to(mode: Mode) -> str:
    """The action that a clause permits: this mode and those below; statistics stand alone."""
    return "action:aggregate" if mode is Mode.AGGREGATE else f"action:up-to-{mode.word}"


def prohibition(
    uid: str,
    words: str,
    *,
    categories: Iterable[str],
    at_most: Mode,
    tag: str | None = None,
    purposes: frozenset[str] | None = None,
    liftable: bool = False,
    more: Iterable[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """What holds back: every action above a mode, on these categories (`record` stands for all)."""
    constraints = [*more]
    if tag is not None:
        constraints.append(constraint("dsa:tag", "isAnyOf", [iri("tag", tag)]))
    if purposes is not None:
        constraints.append(constraint("dsa:purposeOverlap", "isAnyOf", iris("purpose", purposes)))
    if liftable:
        constraints.append(constraint("dsa:lifted", "eq", False))
    targets = ["category:any"] if RECORD in categories else [f"category:{name}" for name in sorted(categories)]
    return {
        "uid": uid,
        "type": "odrl:Prohibition",
        "dct:description": words,
        "odrl:action": f"action:above-{at_most.word}",
        "odrl:target": [*targets, *(f"category:{name}" for name in sorted(categories) if targets == ["category:any"])],
        **({"odrl:constraint": constraints} if constraints else {}),
    }


def constraint(left: str, operator: str, right: object, uid: str | None = None) -> dict[str, Any]:
    """One ODRL constraint; with a `uid`, others may refer to it."""
    named = {"uid": uid} if uid else {}
    return named | {"odrl:leftOperand": left, "odrl:operator": f"odrl:{operator}", "odrl:rightOperand": right}


def iri(kind: str, name: str) -> dict[str, str]:
    """A reference to a term of a list."""
    return {"uid": f"{kind}:{name}"}


def iris(kind: str, names: Iterable[str]) -> list[dict[str, str]]:
    """References to terms, in order."""
    return [iri(kind, name) for name in sorted(names)]


def _operands() -> Iterator[dict[str, Any]]:
    for name, words in OPERANDS.items():
        yield {"uid": f"dsa:{name}", "type": ["odrl:LeftOperand", "skos:Concept"], "skos:definition": words}


def _actions() -> Iterator[dict[str, Any]]:
    for mode in CASEWORK:
        yield _action(f"up-to-{mode.word}", f"show up to {mode.word}", ["odrl:use"])
    for mode in (Mode.NONE, *CASEWORK[:-1], Mode.DETAIL):
        yield _action(f"above-{mode.word}", f"show more than {mode.word}", ["odrl:use"])
    for mode in CASEWORK:
        inside = [f"action:up-to-{most.word}" for most in CASEWORK if mode <= most]
        inside += [f"action:above-{least.word}" for least in (Mode.NONE, *CASEWORK) if least < mode]
        yield _action(mode.word, f"show at {mode.word}", inside) | {"dsa:height": int(mode)}
    yield _action("aggregate", "count in statistics", ["action:above-none"]) | {"dsa:height": int(Mode.AGGREGATE)}


def _action(name: str, words: str, inside: list[str]) -> dict[str, Any]:
    return {
        "uid": f"action:{name}",
        "type": ["odrl:Action", "skos:Concept"],
        "skos:prefLabel": words,
        "odrl:includedIn": inside,
    }


def _categories(vocabulary: Vocabulary) -> Iterator[dict[str, Any]]:
    yield {"uid": "category:any", "type": "odrl:AssetCollection", "skos:prefLabel": "every category, and the bare hit"}
    yield {
        "uid": f"category:{RECORD}",
        "type": "odrl:Asset",
        "skos:prefLabel": "that a record is held",
        "odrl:partOf": "category:any",
    }
    for name in vocabulary.shareable:
        category = vocabulary.categories[name]
        kinds = ["odrl:Asset", "skos:Concept", "dpv:PersonalData"]
        if category.special == "always":
            kinds.append("dpv:SpecialCategoryPersonalData")
        yield {
            "uid": f"category:{name}",
            "type": kinds,
            "skos:prefLabel": category.label,
            "skos:notation": category.alias,
            "odrl:partOf": "category:any",
            "dsa:sector": category.sector,
            "dsa:needsConditionAt": [
                iri("action", mode.word) for mode in Mode if mode and category.needs_condition(mode)
            ],
            "dsa:ceiling": [
                {"dsa:column": column, "dsa:shows": _shows(most)} for column, most in category.ceilings.items() if most
            ],
        }  # fmt: skip


def _purpose(purpose: Purpose) -> dict[str, Any]:
    uid = f"purpose:{purpose.code}"
    return {
        "uid": uid,
        "type": ["skos:Concept", "dpv:Purpose"],
        "skos:inScheme": PROFILE,
        "skos:prefLabel": purpose.label,
        "skos:broader": [f"purpose:{parent}" for parent in purpose.within],
        "skos:broadMatch": NEAREST.get(uid, "dpv:PublicBenefit"),
        **({"dct:source": purpose.statute} if purpose.statute else {}),
        "dsa:group": purpose.group,
        "dsa:column": purpose.column,
        "dsa:shows": _shows(Mode.AGGREGATE if purpose.aggregate else purpose.at_most),
    }


def _shows(most: Mode) -> list[dict[str, str]]:
    """A mode and all below it, or statistics alone."""
    return [iri("action", mode.word) for mode in ((most,) if most is Mode.AGGREGATE else CASEWORK[: int(most)])]


def _links() -> Iterator[dict[str, Any]]:
    most = {Link.POSSIBLE: Mode.EXISTENCE, Link.MATCH: Mode.STATUS, Link.CERTAIN: Mode.DETAIL}
    for link in Link:
        shows = _shows(most.get(link, Mode.NONE)) + (_shows(Mode.AGGREGATE) if link >= Link.MATCH else [])
        uid = f"link:{link.name.lower()}"
        yield {"uid": uid, "type": "skos:Concept", "dsa:height": int(link), "dsa:shows": shows}


def _lists(vocabulary: Vocabulary) -> Iterator[dict[str, Any]]:
    lists: Mapping[str, Mapping[str, Term]] = {
        "role": vocabulary.roles,
        "basis": vocabulary.art6,
        "condition": vocabulary.conditions,
        "gateway": vocabulary.gateways,
        "relation": vocabulary.relations,
        "tag": vocabulary.tags,
        "threshold": vocabulary.thresholds,
        "duty": vocabulary.duties,
    }
    for kind, terms in lists.items():
        for height, term in enumerate(terms.values(), start=1):
            yield _term(kind, term, height)


def _commencement(term: Term) -> dict[str, Any]:
    """From when a statute counts that is enacted."""
    if term.commences is None:
        return {"dsa:notInForce": True}
    begins = london_midnight(term.commences).isoformat().replace("+00:00", "Z")
    return {"dsa:inForceFrom": {"@type": "xsd:dateTime", "@value": begins}}


def _term(kind: str, term: Term, height: int) -> dict[str, Any]:
    uid = f"{kind}:{term.code}"
    node: dict[str, Any] = {
        "uid": uid,
        "type": ["skos:Concept", "odrl:Action"] if kind == "duty" else "skos:Concept",
        "skos:inScheme": PROFILE,
        "skos:prefLabel": term.label,
    }
    if term.source:
        node["dct:source"] = term.source
    if uid in MATCHES:
        node["skos:closeMatch"] = list(MATCHES[uid])
    if uid in NEAREST:
        node["skos:broadMatch"] = NEAREST[uid]
    if kind == "duty":
        node["odrl:includedIn"] = _ODRL_DUTIES.get(term.code, "odrl:use")
    if kind == "threshold":
        node["dsa:height"] = height
    if FROM_COMMENCEMENT in term.flags:
        node |= _commencement(term)
    if "not_public" in term.flags:
        node["dsa:closedToPublicAuthorities"] = True
    return node
