"""From TOML to an agreement: strict on reading, canonical when signed.

A document loads whole or not at all.  Every refusal names the place and what to write instead.  What is evaluated
becomes an `Agreement` or a `Restriction`; the rest is signed with it, printed and listed, and never evaluated.
"""

from __future__ import annotations

import json
import re
import tomllib
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from itertools import product
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal

import rfc8785
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema

from agreements.agreement import (
    Agreement,
    BreakGlassTerms,
    Document,
    DocumentRef,
    Duration,
    Duty,
    Grant,
    GrantBasis,
    InvalidAgreement,
    Limit,
    Party,
    Period,
    Restriction,
)
from agreements.vocabulary import CASEWORK, RECORD, VOCABULARY, Mode, Vocabulary

LARGEST: Final = 256 * 1024
LARGEST_INTEGER: Final = 2**53 - 1
_BIDIRECTIONAL: Final = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about a document: where (a path, "grants[2].from"), what, and what to write instead.

    `refused`: it can't be loaded; `lint`: it loads, and a reviewer should see this first.
    """

    path: str
    message: str
    fix: str
    severity: Literal["refused", "lint"] = "refused"


class DocumentRefused(ValueError):
    """A document that can't be loaded, with all that was found; nothing of it is."""

    def __init__(self, findings: Iterable[Finding]) -> None:
        self.findings: Final = tuple(findings)
        super().__init__("; ".join(f"{finding.path}: {finding.message}; {finding.fix}" for finding in self.findings))


def read(source: bytes | str, *, umbrellas: Iterable[Agreement] = (), vocabulary: Vocabulary = VOCABULARY) -> Document:
    """The agreement or restriction of a TOML text.  An umbrella that it stands under must be among `umbrellas`.

    Raises DocumentRefused.
    """
    return _document(_parsed(source), umbrellas, vocabulary)


def from_canonical(raw: bytes, *, umbrellas: Iterable[Agreement] = (), vocabulary: Vocabulary = VOCABULARY) -> Document:
    """The document of its canonical JSON: equal to the one `read` from its TOML.  Raises DocumentRefused."""
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        raise _refused("document", "it is not JSON", "give the canonical form") from None
    if not isinstance(body, dict):
        raise _refused("document", "it is not an object", "give the canonical form")
    pinned = {name: body.get(name) for name in ("vocabulary", "under") if name in body}
    body |= {name: pin.get("ref") if isinstance(pin, dict) else pin for name, pin in pinned.items()}
    document = _document(_dated(body), umbrellas, vocabulary)
    if document.canonical != raw:
        raise _refused(
            "document", "it is not in canonical form, or pins other digests", "give the bytes that were signed"
        )
    return document


def check(
    source: bytes | str, *, umbrellas: Iterable[Agreement] = (), vocabulary: Vocabulary = VOCABULARY
) -> tuple[Finding, ...]:
    """All findings on a text; none of them `refused` means that it loads."""
    try:
        document = read(source, umbrellas=umbrellas, vocabulary=vocabulary)
    except DocumentRefused as refused:
        return refused.findings
    return tuple(_lint(document, vocabulary)) if isinstance(document, Agreement) else ()


def json_schema() -> dict[str, Any]:
    """JSON Schemas of both kinds of document, for editors: what the loader checks beyond them is in its refusals."""
    return {"agreement": _AgreementText.model_json_schema(), "restriction": _RestrictionText.model_json_schema()}


# --- the text: types as strict as the grammar ---------------------------------------------------------------------


def _exactly_a_day(value: object) -> object:
    if type(value) is not date:  # a datetime is a date to Python, and a day to nobody
        raise ValueError("a day is due, such as 2026-04-01 without quotes and without a time")
    return value


def _unique(values: list[Any]) -> list[Any]:
    seen: list[Any] = []
    for value in values:
        if value in seen:
            raise ValueError("an entry stands twice")
        seen.append(value)
    return values


Day = Annotated[date, BeforeValidator(_exactly_a_day), WithJsonSchema({"type": "string", "format": "date"})]
Text = Annotated[str, Field(min_length=1, max_length=4000)]
Id = Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=64)]
Version = Annotated[str, Field(pattern=r"^(0|[1-9][0-9]{0,5})\.(0|[1-9][0-9]{0,5})\.(0|[1-9][0-9]{0,5})$")]
Ref = Annotated[str, Field(pattern=r"^[a-z0-9-]+@[0-9.]+$")]
Span = Annotated[str, Field(pattern=r"^(P[1-9][0-9]{0,3}[YMD]|PT[1-9][0-9]{0,3}M)$")]
Terms = Annotated[list[str], AfterValidator(_unique), Field(min_length=1)]
Word = Literal["none", "existence", "status", "summary", "detail"]
Shown = Literal["existence", "status", "summary", "detail", "aggregate"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _PeriodText(_Strict):
    effective: Day
    expires: Day
    review_by: Day | None = None
    if_review_overdue: Literal["warn", "suspend"] | None = None


class _AssuranceText(_Strict):
    dpia: Text | None = None
    apd: Text | None = None
    notice: Text | None = None
    approved: Day | None = None
    eqia: Text | None = None
    audit_cadence: Text | None = None
    sampling: Text | None = None


class _SignatoryText(_Strict):
    post: Text
    method: Text | None = None


class _PartyText(_Strict):
    id: Id
    signs_as: Text
    public_authority: bool
    discloses: Annotated[list[str], AfterValidator(_unique)]
    legal_entity: Text | None = None
    role: Literal["controller", "joint", "processor", "recipient"] | None = None
    ods: Text | None = None
    urn: Text | None = None
    force: Text | None = None
    la_code: Text | None = None
    ico_reg_no: Text | None = None
    competent_authority: bool | None = None
    dpo: Text | None = None
    caldicott_guardian: Text | None = None
    siro: Text | None = None
    operational_lead: Text | None = None
    breach_contact_24h: Text | None = None
    signatory: _SignatoryText | None = None


class _WhenText(_Strict):
    tag: str


class _LimitText(_Strict):
    id: Id
    text: Text
    when: _WhenText | None = None
    for_: Annotated[Terms | None, Field(alias="for")] = None
    categories: Terms
    at_most: Word
    lift: Literal["never", "break_glass"] = "never"


class _ToText(_Strict):
    orgs: Terms
    roles: Terms


class _BasisText(_Strict):
    art6: Terms
    condition: Terms | None = None
    gateway: Terms | None = None
    le_authority: Terms | None = None


class _GivenText(_Strict):
    case_reference: bool = False
    threshold: str | None = None
    link: Literal["possible", "match"] | None = None
    recorded_within: Span | None = None


class _BreakGlassText(_Strict):
    reason: Literal["required"]
    ends_after: Span
    notify: Terms
    review_within_working_days: Annotated[int, Field(ge=1, le=5)]


class _DutyText(_Strict):
    do: str
    after: Annotated[str, Field(pattern=r"^[a-z_]{1,40}$")] | None = None
    within: Span | None = None


class _DiscloseText(_Strict):
    existence: Terms | None = None
    status: Terms | None = None
    summary: Terms | None = None
    detail: Terms | None = None
    aggregate: Terms | None = None


class _GrantText(_Strict):
    id: Id
    text: Text
    from_: Annotated[Terms, Field(alias="from")]
    to: _ToText
    for_: Annotated[Terms, Field(alias="for")]
    but_not_for: Terms | None = None
    basis: _BasisText
    about: Terms
    given: _GivenText = _GivenText()
    break_glass: _BreakGlassText | None = None
    disclose: _DiscloseText
    duties: Annotated[list[_DutyText], AfterValidator(_unique)] = []


class _PurposeText(_Strict):
    code: str
    necessity: Text
    benefits: Text | None = None
    proportionality: Text | None = None
    alternatives_considered: Text | None = None


class _LegalText(_Strict):
    purpose: str
    party: Id
    categories: Terms
    regime: Literal["GENERAL", "LE"]
    art6: Text
    statute: Text
    art9: Text | None = None
    sch1_para: Text | None = None
    art10: Text | None = None
    s36_4_authority: Text | None = None
    confidence_limb: Text | None = None
    apd_ref: Text | None = None


class _FlowText(_Strict):
    source: Id
    categories: Terms
    frequency: Text
    channel: Text
    lookback: Span | None = None


class _PopulationText(_Strict):
    cohort: Text
    ages: Text | None = None
    exclusions: Text | None = None


class _RecipientsText(_Strict):
    vetting: Text | None = None
    training: Text | None = None
    need_to_know: Text | None = None


class _LinkageText(_Strict):
    identifiers: Text
    confidence: Text
    review: Text | None = None
    must_not_link: Text | None = None


class _RetentionText(_Strict):
    broker_copy: Text
    result_copy: Text
    audit: Text
    deletion: Text | None = None


class _SecurityText(_Strict):
    standards: Text
    encryption: Text | None = None
    hosting: Text | None = None
    incident: Text | None = None


class _RightsText(_Strict):
    lead: Text
    subject_access: Text
    exemptions: Text | None = None
    rectification: Text | None = None
    complaints: Text | None = None
    objection: Text | None = None


class _TransparencyText(_Strict):
    notice: Text
    child_friendly: Text | None = None


class _BreachText(_Strict):
    lead: Text
    notify: Text


class _TerminationText(_Strict):
    notice_period: Text
    return_or_delete: Text
    survival: Text | None = None


class _ChangeText(_Strict):
    version: Version
    on: Day
    what: Text


class _AgreementText(_Strict):
    format: Literal[1]
    kind: Literal["agreement"]
    id: Id
    version: Version
    title: Text
    under: Ref | None = None
    vocabulary: Ref
    period: _PeriodText
    assurance: _AssuranceText = _AssuranceText()
    owner: Text | None = None
    parties: Annotated[list[_PartyText], Field(min_length=2)]
    limits: list[_LimitText] = []
    grants: list[_GrantText] = []
    purposes: list[_PurposeText] = []
    legal: list[_LegalText] = []
    flows: list[_FlowText] = []
    population: _PopulationText | None = None
    recipients: _RecipientsText | None = None
    linkage: _LinkageText | None = None
    retention: _RetentionText | None = None
    security: _SecurityText | None = None
    rights: _RightsText | None = None
    transparency: _TransparencyText | None = None
    breach: _BreachText | None = None
    termination: _TerminationText | None = None
    disputes: Text | None = None
    change_log: list[_ChangeText] = []


class _SubjectText(_Strict):
    record_ref: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,128}$")]


class _RestrictionText(_Strict):
    format: Literal[1]
    kind: Literal["restriction"]
    id: Id
    version: Version
    vocabulary: Ref
    owner: Id
    authority: Literal["own_rule", "court_order", "subject_seal", "statute"]
    text: Text
    period: _PeriodText
    subject: _SubjectText | None = None
    when: _WhenText | None = None
    for_: Annotated[Terms | None, Field(alias="for")] = None
    categories: Terms
    at_most: Word
    lift: Literal["never", "break_glass"] = "never"


# --- parsing --------------------------------------------------------------------------------------------------------


class _NotWhole:
    """What stands where a document writes a number that is not whole: no field takes it, so its place is named."""

    def __init__(self, _: str) -> None:
        pass

    def __repr__(self) -> str:
        return "a number that is not whole"


def _parsed(source: bytes | str) -> dict[str, Any]:
    raw = source.encode("utf-8", "surrogatepass") if isinstance(source, str) else source
    if len(raw) > LARGEST:
        raise _refused("document", "it is larger than 256 kB", "split it, or shorten its texts")
    if raw.startswith(b"\xef\xbb\xbf"):
        raise _refused("line 1", "it begins with a byte order mark", "save it as UTF-8 without one")
    try:
        body = tomllib.loads(raw.decode("utf-8"), parse_float=_NotWhole)
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise _refused(f"line {line}", "it is not UTF-8", "save it as UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        place = re.search(r"\(at (line \d+, column \d+|end of document)\)", str(error))
        message = str(error).split(" (at ")[0]
        raise _refused(place.group(1) if place else "document", f"not TOML: {message}", "correct it there") from None
    except RecursionError:
        raise _refused("document", "it is nested too deeply", "write lists and tables one level deep") from None
    findings = list(_unclean(body, ""))
    if findings:
        raise DocumentRefused(findings)
    return body


def _unclean(value: object, path: str) -> Iterator[Finding]:
    """Texts that are not what they look like, integers that JSON can't hold."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _unclean(str(key), _inside(path, "key"))
            yield from _unclean(inner, _inside(path, str(key)) if str(key).isprintable() else _inside(path, "key"))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _unclean(inner, f"{path}[{index}]")
    elif isinstance(value, str):
        if unicodedata.normalize("NFC", value) != value:
            yield Finding(path, "a text is not in Unicode form NFC", "save it normalised")
        if any(unicodedata.category(letter) in ("Cc", "Cs") or letter in _BIDIRECTIONAL for letter in value):
            yield Finding(
                path, "a text has a control or bidirectional character", "write it in one line, in plain letters"
            )
    elif type(value) is int and abs(value) > LARGEST_INTEGER:
        yield Finding(path, "an integer beyond 2^53 - 1", "write a smaller one")


def _inside(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _dated(value: Any, key: str = "") -> Any:
    """Canonical JSON as TOML would have given it: the days are days again."""
    if isinstance(value, dict):
        return {name: _dated(inner, name) for name, inner in value.items()}
    if isinstance(value, list):
        return [_dated(inner) for inner in value]
    if key in ("effective", "expires", "review_by", "approved", "on") and isinstance(value, str):
        try:
            return date.fromisoformat(value)
        except ValueError:
            return value
    return value


def _document(body: dict[str, Any], umbrellas: Iterable[Agreement], vocabulary: Vocabulary) -> Document:
    kind = body.get("kind")
    if kind not in ("agreement", "restriction"):
        raise _refused("kind", "it says neither agreement nor restriction", 'write kind = "agreement" or "restriction"')
    model = _AgreementText if kind == "agreement" else _RestrictionText
    try:
        text = model.model_validate(body)
    except ValidationError as error:
        raise DocumentRefused(_findings(error)) from None
    if isinstance(text, _AgreementText):
        umbrella = next((one for one in umbrellas if one.ref == text.under), None)
        if findings := list(_agreement_findings(text, umbrella, vocabulary)):
            raise DocumentRefused(findings)
        return _agreement(text, body, umbrella, vocabulary)
    assert isinstance(text, _RestrictionText)
    if findings := list(_restriction_findings(text, vocabulary)):
        raise DocumentRefused(findings)
    return _restriction(text, body, vocabulary)


_FIXES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "missing": "write it",
        "extra_forbidden": "take it out: nobody reads it",
        "string_type": "write a text in quotes",
        "bool_type": "write true or false",
        "int_type": "write a whole number",
        "list_type": "write a list",
        "string_pattern_mismatch": "write it in the form that is due",
        "too_short": "name at least one",
        "string_too_short": "write something",
    }
)


def _findings(error: ValidationError) -> Iterator[Finding]:
    for one in error.errors(include_url=False, include_input=False):
        path = ""
        for step in one["loc"]:
            path = f"{path}[{step}]" if isinstance(step, int) else _inside(path, str(step).rstrip("_"))
        message = one["msg"].removeprefix("Value error, ")
        due = f"write one of {expected}" if (expected := one.get("ctx", {}).get("expected")) else "write what is due"
        yield Finding(path or "document", message, _FIXES.get(one["type"], due))


def _refused(path: str, message: str, fix: str) -> DocumentRefused:
    return DocumentRefused([Finding(path, message, fix)])


# --- what a text must also hold -----------------------------------------------------------------------------------


def _agreement_findings(text: _AgreementText, umbrella: Agreement | None, lists: Vocabulary) -> Iterator[Finding]:
    yield from _period_findings(text.period, choose=True)
    if text.vocabulary != lists.id:
        yield Finding("vocabulary", f"only {lists.id} is known here", f'write "{lists.id}"')
    yield from _umbrella_findings(text, umbrella)
    parties = {party.id: party for party in text.parties}
    yield from _twice((f"parties[{index}].id", party.id) for index, party in enumerate(text.parties))
    sectors = {category.sector for category in lists.categories.values()}
    for index, party in enumerate(text.parties):
        yield from _unknown(f"parties[{index}].discloses", party.discloses, sectors, "sector")
    clauses = [(f"limits[{i}].id", limit.id) for i, limit in enumerate(text.limits)]
    yield from _twice([*clauses, *((f"grants[{i}].id", grant.id) for i, grant in enumerate(text.grants))])
    for index, limit in enumerate(text.limits):
        yield from _holder_findings(f"limits[{index}]", limit, lists)
    for index, grant in enumerate(text.grants):
        where = f"grants[{index}]"
        wrong = list(_term_findings(where, grant, parties, lists))
        yield from wrong
        if not wrong:
            yield from _grant_findings(where, grant, text, parties, lists)
    for index, purpose in enumerate(text.purposes):
        yield from _unknown(f"purposes[{index}].code", [purpose.code], set(lists.purposes), "purpose")
    for index, legal in enumerate(text.legal):
        yield from _unknown(f"legal[{index}].purpose", [legal.purpose], set(lists.purposes), "purpose")
        yield from _unknown(f"legal[{index}].categories", legal.categories, set(lists.shareable), "category")
        yield from _unknown(f"legal[{index}].party", [legal.party], set(parties), "party")
    for index, flow in enumerate(text.flows):
        yield from _unknown(f"flows[{index}].categories", flow.categories, set(lists.shareable), "category")
        yield from _unknown(f"flows[{index}].source", [flow.source], set(parties), "party")


def _umbrella_findings(text: _AgreementText, umbrella: Agreement | None) -> Iterator[Finding]:
    if text.under is None:
        return
    if umbrella is None:
        yield Finding("under", f"{text.under} is not at hand", "give that document too: its digest is signed with this")
        return
    if umbrella.grants or umbrella.under is not None:
        yield Finding("under", f"{text.under} is no umbrella", "an umbrella has no grants and stands under none")
    for index, party in enumerate(text.parties):
        if party.id not in umbrella.parties:
            yield Finding(f"parties[{index}].id", f"no party to {text.under}", "let it join the umbrella first")


def _period_findings(period: _PeriodText, *, choose: bool) -> Iterator[Finding]:
    if period.expires < period.effective:
        yield Finding("period.expires", "it ends before it begins", "write a day on or after effective")
    if period.review_by is not None and not period.effective <= period.review_by <= period.expires:
        yield Finding("period.review_by", "it lies outside the period", "write a day from effective to expires")
    if choose and period.review_by is None:
        yield Finding("period.review_by", "Field required", "write by which day it is reviewed")
    if choose and period.if_review_overdue is None:
        yield Finding("period.if_review_overdue", "Field required", 'choose "warn" or "suspend"')


def _holder_findings(where: str, holder: _LimitText | _RestrictionText, lists: Vocabulary) -> Iterator[Finding]:
    prefix = f"{where}." if where else ""
    yield from _unknown(f"{prefix}categories", holder.categories, {RECORD, *lists.shareable}, "category")
    yield from _unknown(f"{prefix}for", holder.for_ or (), set(lists.purposes), "purpose")
    if holder.when is None:
        return
    yield from _unknown(f"{prefix}when.tag", [holder.when.tag], set(lists.tags), "tag")
    tag = lists.tags.get(holder.when.tag)
    if holder.lift == "break_glass" and tag is not None and "protective" in tag.flags:
        yield Finding(f"{prefix}lift", f"an emergency never lifts {holder.when.tag}", 'write lift = "never"')


def _restriction_findings(text: _RestrictionText, lists: Vocabulary) -> Iterator[Finding]:
    yield from _period_findings(text.period, choose=False)
    if text.vocabulary != lists.id:
        yield Finding("vocabulary", f"only {lists.id} is known here", f'write "{lists.id}"')
    yield from _holder_findings("", text, lists)


def _term_findings(
    where: str, grant: _GrantText, parties: Mapping[str, _PartyText], lists: Vocabulary
) -> Iterator[Finding]:
    """Words of one grant that no list holds."""
    yield from _unknown(f"{where}.from", grant.from_, set(parties), "party")
    yield from _unknown(f"{where}.to.orgs", grant.to.orgs, set(parties), "party")
    yield from _unknown(f"{where}.to.roles", grant.to.roles, set(lists.roles), "role")
    yield from _unknown(f"{where}.for", grant.for_, set(lists.purposes), "purpose")
    yield from _unknown(f"{where}.but_not_for", grant.but_not_for or (), set(lists.purposes), "purpose")
    yield from _unknown(f"{where}.about", grant.about, set(lists.relations), "relation")
    basis = grant.basis
    open_art6 = {code for code, term in lists.art6.items() if "never_default" not in term.flags}
    yield from _unknown(f"{where}.basis.art6", basis.art6, open_art6, "basis for a clause")
    yield from _unknown(f"{where}.basis.condition", basis.condition or (), set(lists.conditions), "condition")
    yield from _unknown(f"{where}.basis.gateway", basis.gateway or (), set(lists.gateways), "gateway")
    yield from _unknown(f"{where}.basis.le_authority", basis.le_authority or (), set(lists.le_authorities), "authority")
    if grant.given.threshold is not None:
        yield from _unknown(f"{where}.given.threshold", [grant.given.threshold], set(lists.thresholds), "threshold")
    if grant.given.recorded_within is not None and grant.given.recorded_within.startswith("PT"):
        yield Finding(f"{where}.given.recorded_within", "a window is in days or more", "write it as P30D, P6M or P2Y")
    for index, duty in enumerate(grant.duties):
        yield from _unknown(f"{where}.duties[{index}].do", [duty.do], set(lists.duties), "duty")
    seen: dict[str, str] = {}
    for mode, names in _disclosed(grant):
        allowed = {RECORD, *lists.shareable} if mode is Mode.EXISTENCE else set(lists.shareable)
        yield from _unknown(f"{where}.disclose.{mode.word}", names, allowed, "category")
        for name in names:
            if name in seen:
                yield Finding(f"{where}.disclose.{mode.word}", f"{name} stands under {seen[name]} too", "name it once")
            seen[name] = mode.word
    if not seen:
        yield Finding(f"{where}.disclose", "it gives nothing", "name a category, or take the clause out")


def _grant_findings(
    where: str, grant: _GrantText, text: _AgreementText, parties: Mapping[str, _PartyText], lists: Vocabulary
) -> Iterator[Finding]:
    """What one grant, all of whose words are known, may not give."""
    for index, source in enumerate(grant.from_):
        owned = [name for _, names in _disclosed(grant) for name in names if _owns(parties[source], name, lists)]
        if not owned:
            yield Finding(f"{where}.from[{index}]", "it owns nothing that is given", "take it out, or add its sector")
    purposes = frozenset().union(*(lists.down(purpose) for purpose in grant.for_))
    purposes -= frozenset().union(*(lists.down(purpose) for purpose in grant.but_not_for or ()))
    for mode, names in _disclosed(grant):
        place = f"{where}.disclose.{mode.word}"
        for name in names:
            if not any(_owns(parties[source], name, lists) for source in grant.from_):
                yield Finding(place, f"no source named owns {name}", "name the sector's owner in `from`")
            ceilings = [lists.ceiling(p, name) for p in purposes if not lists.purposes[p].group]
            if not any((cap is Mode.AGGREGATE) is (mode is Mode.AGGREGATE) and mode <= cap for cap in ceilings):
                yield Finding(place, f"{name} is above every ceiling of the purposes named", "grant less, never more")
    yield from _assurance_findings(where, grant, text.assurance, lists)
    for index, term in enumerate(grant.basis.art6):
        if "not_public" in lists.art6[term].flags and all(parties[org].public_authority for org in grant.to.orgs):
            yield Finding(f"{where}.basis.art6[{index}]", "no recipient named may use it", "name a basis open to them")
    if grant.break_glass is not None:
        yield from _emergency_findings(where, grant, grant.break_glass, text)


def _assurance_findings(where: str, grant: _GrantText, assured: _AssuranceText, lists: Vocabulary) -> Iterator[Finding]:
    """Papers and conditions that what is given needs."""
    if assured.dpia is None:
        yield Finding("assurance.dpia", "a grant needs an impact assessment", "name it")
    if assured.notice is None:
        yield Finding("assurance.notice", "a grant needs a privacy notice", "name it")
    for mode, names in _disclosed(grant):
        for name in names:
            if name == RECORD or not lists.categories[name].needs_condition(mode):
                continue
            if not grant.basis.condition:
                yield Finding(f"{where}.basis.condition", f"{name} at {mode.word} needs one", "name the condition")
            if assured.apd is None:
                yield Finding("assurance.apd", f"{name} at {mode.word} needs one", "name the policy document")


def _emergency_findings(
    where: str, grant: _GrantText, terms: _BreakGlassText, text: _AgreementText
) -> Iterator[Finding]:
    """An emergency clause lasts an hour at most and adds one mode at most to what the same parties share otherwise."""
    if not terms.ends_after.startswith("PT") or _span(terms.ends_after).minutes > 60:
        yield Finding(f"{where}.break_glass.ends_after", "longer than an hour", "write PT60M or less")
    parties = {party.id: party for party in text.parties}
    usual: dict[tuple[str, str, str], Mode] = {}
    for one in text.grants:
        if one.break_glass is None:
            for pair in product(one.from_, one.to.orgs):
                for mode, names in _disclosed(one):
                    for name in names if mode is not Mode.AGGREGATE else ():
                        usual[*pair, name] = max(mode, usual.get((*pair, name), Mode.NONE))
    for mode, names in _disclosed(grant):
        for name, source in product(names, grant.from_):
            if name != RECORD and name.partition(".")[0] not in parties[source].discloses:
                continue
            if any(mode > usual.get((source, org, name), Mode.NONE) + 1 for org in grant.to.orgs):
                message = f"{name} is over one mode above what {source} gives a recipient named otherwise"
                yield Finding(f"{where}.disclose.{mode.word}", message, "an emergency adds one mode at most")


def _lint(agreement: Agreement, lists: Vocabulary) -> Iterator[Finding]:
    """What loads and should be looked at."""
    for index, limit in enumerate(agreement.limits):
        if limit.tag is None and RECORD in limit.categories and limit.at_most is Mode.NONE:
            message = "it holds back everything, always: no clause of this agreement can give anything"
            yield Finding(f"limits[{index}]", message, "name a tag or categories", "lint")
    body = agreement.body
    covered = {
        (row["party"], purpose, name)
        for row in body.get("legal", ())
        for purpose in lists.down(row["purpose"])
        for name in row["categories"]
    }
    for index, grant in enumerate(agreement.grants):
        where = f"grants[{index}]"
        purposes = {
            purpose for given in grant.purposes for purpose in lists.down(given) if not lists.purposes[purpose].group
        }
        for source in sorted(grant.sources):
            owned = agreement.parties[source].discloses
            named = {name for name in grant.modes if name != RECORD and lists.categories[name].sector in owned}
            if any((source, purpose, name) not in covered for name in named for purpose in purposes):
                yield Finding(where, f"no legal row for all that {source} gives", "add [[legal]] rows", "lint")
        if "SAFEGUARDING" in grant.purposes:
            yield Finding(f"{where}.for", "every safeguarding purpose at once", "name the purposes needed", "lint")
        if not grant.case_reference and Mode.AGGREGATE not in grant.modes.values() and grant.break_glass is None:
            yield Finding(f"{where}.given", "it asks for no case reference", "write case_reference = true", "lint")
        if "police" in {name.partition(".")[0] for name in grant.modes} and not grant.basis.le_authority:
            message = "no authority for law-enforcement items: those are never shown under it"
            yield Finding(f"{where}.basis.le_authority", message, "name the authorising statute", "lint")


def _disclosed(grant: _GrantText) -> list[tuple[Mode, list[str]]]:
    return [(mode, names) for mode in (*CASEWORK, Mode.AGGREGATE) if (names := getattr(grant.disclose, mode.word))]


def _owns(party: _PartyText, category: str, lists: Vocabulary) -> bool:
    return category == RECORD or lists.categories[category].sector in party.discloses


def _unknown(path: str, given: Sequence[str], known: set[str], what: str) -> Iterator[Finding]:
    for term in given:
        if term not in known:
            near = ", ".join(sorted(known)[:40])
            yield Finding(path, f"{term!r} is no {what} that may stand here", f"write one of {near}")


def _twice(ids: Iterable[tuple[str, str]]) -> Iterator[Finding]:
    seen: set[str] = set()
    for path, name in ids:
        if name in seen:
            yield Finding(path, f"{name!r} stands twice", "name each once")
        seen.add(name)


# --- from text to domain ------------------------------------------------------------------------------------------


def _agreement(text: _AgreementText, body: dict[str, Any], umbrella: Agreement | None, lists: Vocabulary) -> Agreement:
    period = text.period
    try:
        return Agreement(
            id=text.id,
            version=text.version,
            title=text.title,
            under=DocumentRef(umbrella.ref, umbrella.digest) if umbrella else None,
            vocabulary=DocumentRef(lists.id, lists.digest),
            period=Period.of_days(period.effective, period.expires),
            review=Period.of_days(period.review_by, period.review_by).end if period.review_by else None,
            if_review_overdue=period.if_review_overdue or "suspend",
            parties={
                party.id: Party(
                    id=party.id,
                    public_authority=party.public_authority,
                    discloses=frozenset(party.discloses),
                    signs_as=party.signs_as,
                )
                for party in text.parties
            },
            limits=tuple(
                Limit(
                    id=limit.id,
                    text=limit.text,
                    tag=limit.when.tag if limit.when else None,
                    categories=frozenset(limit.categories),
                    at_most=Mode.parse(limit.at_most),
                    purposes=frozenset(limit.for_) if limit.for_ else None,
                    lift=limit.lift,
                )
                for limit in text.limits
            ),
            grants=tuple(_grant(grant) for grant in text.grants),
            canonical=_canonical(body, lists, umbrella),
        )
    except InvalidAgreement as error:
        raise _refused("grants", str(error), "correct the clause") from None


def _grant(text: _GrantText) -> Grant:
    basis, terms = text.basis, text.break_glass
    return Grant(
        id=text.id,
        text=text.text,
        sources=frozenset(text.from_),
        organisations=frozenset(text.to.orgs),
        roles=frozenset(text.to.roles),
        purposes=frozenset(text.for_),
        not_purposes=frozenset(text.but_not_for or ()),
        basis=GrantBasis(
            art6=frozenset(basis.art6),
            conditions=frozenset(basis.condition or ()),
            gateways=frozenset(basis.gateway or ()),
            le_authority=frozenset(basis.le_authority or ()),
        ),
        about=frozenset(text.about),
        case_reference=text.given.case_reference,
        threshold=text.given.threshold,
        link=text.given.link,
        recorded_within=_span(text.given.recorded_within) if text.given.recorded_within else None,
        break_glass=BreakGlassTerms(
            ends_after=_span(terms.ends_after),
            notify=tuple(terms.notify),
            review_within_working_days=terms.review_within_working_days,
        )
        if terms
        else None,
        modes=MappingProxyType({name: mode for mode, names in _disclosed(text) for name in names}),
        duties=tuple(
            Duty(do=duty.do, after=duty.after, within=_span(duty.within) if duty.within else None)
            for duty in text.duties
        ),
    )


def _restriction(text: _RestrictionText, body: dict[str, Any], lists: Vocabulary) -> Restriction:
    return Restriction(
        id=text.id,
        version=text.version,
        vocabulary=DocumentRef(lists.id, lists.digest),
        owner=text.owner,
        authority=text.authority,
        text=text.text,
        period=Period.of_days(text.period.effective, text.period.expires),
        record=text.subject.record_ref if text.subject else None,
        tag=text.when.tag if text.when else None,
        purposes=frozenset(text.for_) if text.for_ else None,
        categories=frozenset(text.categories),
        at_most=Mode.parse(text.at_most),
        lift=text.lift,
        canonical=_canonical(body, lists, None),
    )


def _span(text: str) -> Duration:
    if text.startswith("PT"):
        return Duration(int(text[2:-1]), "TM")
    unit: Literal["Y", "M", "D"] = "Y" if text.endswith("Y") else "M" if text.endswith("M") else "D"
    return Duration(int(text[1:-1]), unit)


def _canonical(body: Mapping[str, Any], lists: Vocabulary, umbrella: Agreement | None) -> bytes:
    """RFC 8785 bytes of what was written: every key and list as it stands, days as ISO 8601, digests pinned."""
    pinned = dict(body) | {"vocabulary": {"ref": lists.id, "sha256": lists.digest}}
    if umbrella is not None:
        pinned["under"] = {"ref": umbrella.ref, "sha256": umbrella.digest}
    return rfc8785.dumps(_plain(pinned))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return value.isoformat() if isinstance(value, date) and not isinstance(value, datetime) else value
