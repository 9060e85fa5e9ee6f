"""The grammar of a document: types as strict as it is.  Every key has its place here; no other key is read."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from agreements.vocabulary import CASEWORK, Mode

NO_DAY: Final = "a day is due"
TWICE: Final = "an entry stands twice"
BLANK: Final = "a text without a letter or a digit"
NO_NUMBER: Final = "a whole number is due"


def _exactly_a_day(value: object) -> object:
    if type(value) is not date:  # a datetime is a date to Python, and a day to nobody
        raise ValueError(NO_DAY)
    return value


def _exactly_a_number(value: object) -> object:
    if type(value) is not int:  # true is a number to Python, and a version of the format to nobody
        raise ValueError(NO_NUMBER)
    return value


def _says_something(value: str) -> str:
    if not any(letter.isalnum() for letter in value):
        raise ValueError(BLANK)
    return value


def unique(values: list[Any] | None) -> list[Any] | None:
    """A list in which each entry stands once.  Raises ValueError."""
    seen: list[Any] = []
    for value in values or ():
        if value in seen:
            raise ValueError(TWICE)
        seen.append(value)
    return values


Day = Annotated[date, BeforeValidator(_exactly_a_day), WithJsonSchema({"type": "string", "format": "date"})]
Text = Annotated[str, Field(min_length=1, max_length=4000), AfterValidator(_says_something)]
Format = Annotated[Literal[1], BeforeValidator(_exactly_a_number)]
ID: Final = r"^[a-z0-9]+(-[a-z0-9]+)*$"
VERSION: Final = r"^(0|[1-9][0-9]{0,5})\.(0|[1-9][0-9]{0,5})\.(0|[1-9][0-9]{0,5})$"
REF: Final = r"^[a-z0-9-]+@[0-9.]+$"
SPAN: Final = r"^(P[1-9][0-9]{0,3}[YMD]|PT[1-9][0-9]{0,3}M)$"
RECORD_REF: Final = r"^[A-Za-z0-9_-]{1,128}$"
Id = Annotated[str, Field(pattern=ID, max_length=64)]
Version = Annotated[str, Field(pattern=VERSION)]
Ref = Annotated[str, Field(pattern=REF)]
Span = Annotated[str, Field(pattern=SPAN)]
Terms = Annotated[list[str], AfterValidator(unique), Field(min_length=1)]
Word = Literal["none", "existence", "status", "summary", "detail"]
Shown = Literal["existence", "status", "summary", "detail", "aggregate"]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class PeriodText(Strict):
    effective: Day
    expires: Day
    review_by: Day | None = None
    if_review_overdue: Literal["warn", "suspend"] | None = None


class AssuranceText(Strict):
    dpia: Text | None = None
    apd: Text | None = None
    notice: Text | None = None
    approved: Day | None = None
    eqia: Text | None = None
    audit_cadence: Text | None = None
    sampling: Text | None = None


class SignatoryText(Strict):
    post: Text
    method: Text | None = None


class PartyText(Strict):
    id: Id
    signs_as: Text
    public_authority: bool
    discloses: Annotated[list[str], AfterValidator(unique)]
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
    signatory: SignatoryText | None = None


class WhenText(Strict):
    tag: str


class LimitText(Strict):
    id: Id
    text: Text
    when: WhenText | None = None
    for_: Annotated[Terms | None, Field(alias="for")] = None
    categories: Terms
    at_most: Word
    lift: Literal["never", "break_glass"] = "never"


class ToText(Strict):
    orgs: Terms
    roles: Terms


class BasisText(Strict):
    art6: Terms
    condition: Terms | None = None
    gateway: Terms | None = None
    le_authority: Terms | None = None


class GivenText(Strict):
    case_reference: bool = False
    threshold: str | None = None
    link: Literal["possible", "match"] | None = None
    recorded_within: Span | None = None


class BreakGlassText(Strict):
    reason: Literal["required"]
    ends_after: Span
    notify: Terms
    review_within_working_days: Annotated[int, Field(ge=1, le=5)]


class DutyText(Strict):
    do: str
    after: str | None = None
    within: Span | None = None


class DiscloseText(Strict):
    existence: Terms | None = None
    status: Terms | None = None
    summary: Terms | None = None
    detail: Terms | None = None
    aggregate: Terms | None = None


class GrantText(Strict):
    id: Id
    text: Text
    from_: Annotated[Terms, Field(alias="from")]
    to: ToText
    for_: Annotated[Terms, Field(alias="for")]
    but_not_for: Terms | None = None
    basis: BasisText
    about: Terms
    given: GivenText = GivenText()
    break_glass: BreakGlassText | None = None
    disclose: DiscloseText
    duties: Annotated[list[DutyText], AfterValidator(unique)] = []


class PurposeText(Strict):
    code: str
    necessity: Text
    benefits: Text | None = None
    proportionality: Text | None = None
    alternatives_considered: Text | None = None


class LegalText(Strict):
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


class FlowText(Strict):
    source: Id
    categories: Terms
    frequency: Text
    channel: Text
    destination: Terms | None = None
    modes: Annotated[list[Shown] | None, AfterValidator(unique), Field(min_length=1)] = None
    format: Text | None = None
    trigger: Text | None = None
    lookback: Span | None = None


class PopulationText(Strict):
    cohort: Text
    ages: Text | None = None
    exclusions: Text | None = None


class RecipientsText(Strict):
    vetting: Text | None = None
    training: Text | None = None
    need_to_know: Text | None = None


class LinkageText(Strict):
    identifiers: Text
    confidence: Text
    review: Text | None = None
    must_not_link: Text | None = None


class ObligationsText(Strict):
    family_informed: Text | None = None
    onward_sharing: Text | None = None
    fact_and_opinion: Text | None = None
    quality: Text | None = None


class RetentionText(Strict):
    broker_copy: Text
    result_copy: Text
    audit: Text
    deletion: Text | None = None


class SecurityText(Strict):
    standards: Text
    encryption: Text | None = None
    hosting: Text | None = None
    incident: Text | None = None


class RightsText(Strict):
    lead: Text
    subject_access: Text
    exemptions: Text | None = None
    rectification: Text | None = None
    complaints: Text | None = None
    objection: Text | None = None


class TransparencyText(Strict):
    notice: Text
    child_friendly: Text | None = None


class BreachText(Strict):
    lead: Text
    notify: Text


class TerminationText(Strict):
    notice_period: Text
    return_or_delete: Text
    survival: Text | None = None


class StatisticsText(Strict):
    """How planners' tables are published under this agreement, never laxer than these bounds."""

    threshold: Annotated[int, Field(ge=5, le=1000)] = 10
    rounding: Literal[5, 10] = 5
    minimum_population: Annotated[int, Field(ge=20, le=100_000)] = 100
    releases_a_quarter: Annotated[int, Field(ge=1, le=100)] = 24
    tables: Annotated[list[Id] | None, AfterValidator(unique), Field(min_length=1)] = None


class ChangeText(Strict):
    version: Version
    on: Day
    what: Text


class AgreementText(Strict):
    format: Format
    kind: Literal["agreement"]
    id: Id
    version: Version
    title: Text
    under: Ref | None = None
    vocabulary: Ref
    period: PeriodText
    assurance: AssuranceText = AssuranceText()
    owner: Text | None = None
    parties: Annotated[list[PartyText], Field(min_length=2)]
    limits: list[LimitText] = []
    grants: list[GrantText] = []
    purposes: list[PurposeText] = []
    legal: list[LegalText] = []
    flows: list[FlowText] = []
    population: PopulationText | None = None
    recipients: RecipientsText | None = None
    linkage: LinkageText | None = None
    obligations: ObligationsText | None = None
    retention: RetentionText | None = None
    security: SecurityText | None = None
    rights: RightsText | None = None
    transparency: TransparencyText | None = None
    breach: BreachText | None = None
    termination: TerminationText | None = None
    statistics: StatisticsText | None = None
    disputes: Text | None = None
    liability: Text | None = None
    foi: Text | None = None
    change_log: list[ChangeText] = []


class SubjectText(Strict):
    record_ref: Annotated[str, Field(pattern=RECORD_REF)]


class RestrictionText(Strict):
    format: Format
    kind: Literal["restriction"]
    id: Id
    version: Version
    vocabulary: Ref
    owner: Id
    authority: Literal["own_rule", "court_order", "subject_seal", "statute"]
    text: Text
    period: PeriodText
    subject: SubjectText | None = None
    when: WhenText | None = None
    for_: Annotated[Terms | None, Field(alias="for")] = None
    categories: Terms
    at_most: Word
    lift: Literal["never", "break_glass"] = "never"


def disclosed(grant: GrantText) -> list[tuple[Mode, list[str]]]:
    return [(mode, names) for mode in (*CASEWORK, Mode.AGGREGATE) if (names := getattr(grant.disclose, mode.word))]
