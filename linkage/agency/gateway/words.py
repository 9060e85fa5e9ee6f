"""Closed lists of the pages, and plain words for codes.  Codes are the partnership's vocabulary; labels are ours."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from types import MappingProxyType
from typing import Final
from zoneinfo import ZoneInfo

from linkage.records import told_year

LONDON: Final = ZoneInfo("Europe/London")
BANNER: Final = "Some records are protected and never shown; their protecting agency is told of searches."


@dataclass(frozen=True, slots=True, kw_only=True)
class Basis:
    """The lawful basis that a purpose is asked on, unless the person changes it."""

    art6: str
    condition: tuple[str, ...]
    gateway: tuple[str, ...]
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Purpose:
    """Why someone searches."""

    code: str
    label: str
    basis: Basis


def _public_task(gateway: str, law: str) -> Basis:
    return Basis(art6="public_task", condition=("dpa18-sch1-18",), gateway=(gateway,), label=f"Public task, {law}")


PURPOSES: Final = MappingProxyType(
    {
        purpose.code: purpose
        for purpose in (
            Purpose(
                code="MASH_SCREEN",
                label="Screening a contact, threshold not yet known",
                basis=_public_task("ca2004-s11", "Children Act 2004 section 11"),
            ),
            Purpose(
                code="S47",
                label="Section 47 enquiry",
                basis=_public_task("ca1989-s47", "Children Act 1989 section 47"),
            ),
            Purpose(
                code="CIN_S17",
                label="Child in need, section 17",
                basis=_public_task("ca1989-s17", "Children Act 1989 section 17"),
            ),
            Purpose(
                code="EARLY_HELP",
                label="Early help assessment",
                basis=_public_task("ca2004-s10", "Children Act 2004 section 10"),
            ),
        )
    }
)

FAMILY_NOT_TOLD: Final = MappingProxyType(
    {
        "no_risk_of_harm": "telling them may put a child at risk of harm",
        "no_not_reachable": "they could not be reached in time",
        "no_crime": "it may get in the way of finding out about a serious crime",
        "no_safe_contact": "there is no safe way to contact them",
    }
)
SEXES: Final = MappingProxyType({"F": "Female", "M": "Male"})
RELATIONS: Final = MappingProxyType(
    {
        "birth_parent": "Parent",
        "step_parent": "Step-parent",
        "carer": "Carer",
        "sibling": "Brother or sister",
        "partner": "Partner of a parent",
        "household": "Lives in the household",
    }
)
GROUNDS: Final = MappingProxyType(
    {
        "significant_harm_suspected": "There is reasonable cause to suspect significant harm",
        "significant_harm_likely": "Significant harm is likely",
        "police_protection": "The child is under police protection",
    }
)
EMERGENCIES: Final = MappingProxyType(
    {
        "IMMEDIATE_DANGER": "A child is in immediate danger now",
        "MISSING_NOW": "A child is missing now and at risk",
        "PROTECTION_POWER": "Police protection or an emergency order is being used now",
        "URGENT_TREATMENT": "A child needs urgent treatment now",
    }
)
"""Why somebody can't wait, as the vocabulary labels it; a test holds both equal."""
WRONG: Final = MappingProxyType(
    {
        "whole_child": "The whole child",
        "organisation_record": "One organisation’s record",
        "family_member": "A family member",
    }
)
WRONG_HOW: Final = MappingProxyType(
    {
        "knows_the_child": "I know the child, and this is another",
        "family_says_so": "The child or the family says so",
        "dates_impossible": "The dates can’t be of one child",
        "own_record_checked": "We looked at our own record",
    }
)
DECLINED: Final = MappingProxyType(
    {
        "detriment": "Sharing would harm the child more than not sharing",
        "not_relevant": "Not relevant to what was asked",
        "legal": "A legal bar",
        "other": "Other, and we have recorded it ourselves",
    }
)
MODES: Final = MappingProxyType(
    {"existence": "that there is a record", "status": "status", "summary": "summary", "detail": "detail"}
)
ENDED: Final = MappingProxyType(
    {
        "completed": "Shown",
        "not_sent": "Not sent",
        "broken_off": "Broke off: a part may have arrived",
        "unknown": "Possibly shown",
    }
)
FIELDS: Final = MappingProxyType(
    {
        "given_name": "given name",
        "family_name": "family name",
        "date_of_birth": "date of birth",
        "postcode": "postcode",
        "sex": "sex",
        "nhs_number": "NHS number",
        "upn": "UPN",
        "pnc": "PNC ID",
        "cro": "CRO number",
        "uln": "ULN",
    }
)
ROLE_NAMES: Final = MappingProxyType(
    {
        "MASH_ANALYST": "Analyst",
        "MASH_DECISION_MAKER": "Decision-maker",
        "AGENCY_REP": "Agency representative",
        "EH_COORDINATOR": "Early help co-ordinator",
        "SOCIAL_WORKER": "Social worker",
        "DSL": "Safeguarding lead",
        "DATA_STEWARD": "Data steward",
    }
)
SECTORS: Final = MappingProxyType(
    {
        "education": "Education",
        "social_care": "Social care",
        "early_help": "Early help",
        "housing": "Housing",
        "health": "Health",
        "police": "Police",
    }
)
KINDS: Final = MappingProxyType(
    {
        "education.enrolment": "School place",
        "education.attendance": "Attendance",
        "education.suspension": "Suspension and exclusion",
        "education.sen": "Special educational needs",
        "education.safeguarding_file": "School safeguarding file",
        "health.registration": "GP registration and team",
        "health.emergency_attendance": "Emergency department attendance",
        "health.not_brought": "Appointments not brought to",
        "health.developmental_review": "Health visitor reviews",
        "health.mental_health_open": "Open mental health or maternity case",
        "health.sealed": "Sealed health information",
        "health.cp_is": "CP-IS status",
        "police.protection_notice": "Police protection notice",
        "police.domestic_abuse": "Domestic abuse incident",
        "police.missing_episode": "Missing episode",
        "police.protection_power": "Police protection or order",
        "police.custody": "Custody and outcome",
        "police.intelligence": "Police intelligence",
        "social_care.contact": "Contact or referral",
        "social_care.child_in_need": "Child in need",
        "social_care.child_protection": "Child protection",
        "social_care.looked_after": "Looked after",
        "social_care.allocated_worker": "Allocated team",
        "social_care.adoption": "Adoption",
        "early_help.episode": "Early help",
        "housing.tenancy": "Tenancy",
        "housing.homelessness": "Homelessness",
        "housing.protected_address": "Protected address",
    }
)
"""Kinds of information, as the vocabulary labels them; a test holds both equal."""
FAMILY_WORDS: Final = MappingProxyType(
    {
        "subject_child": "The child",
        "birth_parent": "Parent",
        "step_parent": "Step-parent",
        "carer": "Carer",
        "sibling": "Sibling",
        "half_sibling": "Half-sibling",
        "child": "Child",
        "household": "Lives in the household",
        "partner": "Partner of a parent",
        "parental_responsibility": "Holds parental responsibility",
    }
)
FAMILY_CONFLICTS: Final = MappingProxyType(
    {
        "parents_differ": "Organisations name different birth parents.",
        "too_young": "By the years of birth one cannot be the parent of the other.",
        "relation_differs": "Two relationships are stated that cannot both be right.",
        "carer_or_parent": "One organisation says carer, another birth parent.",
        "ended_or_current": "One organisation says this has ended, another that it goes on.",
    }
)
"""How organisations disagree on a relationship; which of them is right is for people to find out."""


def fault_links(faults: Mapping[str, str]) -> list[dict[str, str]]:
    """What is wrong with a form, each with a link to its field, as GOV.UK's error summary takes it.

    >>> fault_links({"how": "Choose how you know"})
    [{'text': 'Choose how you know', 'href': '#how'}]
    """
    return [{"text": message, "href": f"#{field}"} for field, message in faults.items()]


def kind_of(category: str) -> str:
    """A kind of information in words.

    >>> kind_of("police.custody"), kind_of("fire.visit")
    ('Custody and outcome', 'Fire visit')
    """
    return KINDS.get(category, plain(category))


def sector(flow: str) -> str:
    """A flow in words.

    >>> sector("social_care"), sector("fire_service")
    ('Social care', 'Fire service')
    """
    return SECTORS.get(flow, plain(flow))


def plain(code: str) -> str:
    """A code that no list has, readable: never shown raw.

    >>> plain("step_parent"), plain("")
    ('Step parent', '')
    """
    words = re.sub(r"[._-]+", " ", code).strip()
    return words[:1].upper() + words[1:]


def lower_first(words: str) -> str:
    """Words as they go on after a colon; a short form keeps its capitals.

    >>> lower_first("Section 47 enquiry"), lower_first("GP told")
    ('section 47 enquiry', 'GP told')
    """
    return words if words[1:2].isupper() else words[:1].lower() + words[1:]


def counted(count: int, unit: str) -> str:
    """So many of something.

    >>> counted(1, "hour"), counted(3, "working day")
    ('1 hour', '3 working days')
    """
    return f"{count} {unit}{'' if count == 1 else 's'}"


def listed(words: Sequence[str], last: str = "and") -> str:
    """Words in a row.

    >>> listed(["NHS number"]), listed(["NHS number", "UPN", "date of birth"])
    ('NHS number', 'NHS number, UPN and date of birth')
    """
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} {last} {words[-1]}"


def agreement_in_words(agreed: Sequence[str], differs: Sequence[str]) -> str:
    """What of the typed details fitted, and what did not; never a number.

    >>> agreement_in_words(["nhs_number", "date_of_birth"], ["postcode"])
    'NHS number and date of birth agree. Postcode differs.'
    >>> agreement_in_words(["upn"], [])
    'UPN agrees.'
    """
    sentences = []
    for fields, one, many in ((agreed, "agrees", "agree"), (differs, "differs", "differ")):
        if fields:
            words = listed([FIELDS.get(field, plain(field).lower()) for field in fields])
            sentences.append(f"{words[:1].upper()}{words[1:]} {one if len(fields) == 1 else many}.")
    return " ".join(sentences)


def born(year: int, this_year: int) -> str:
    """When somebody was born, as an agency tells it.

    >>> born(2017, 2026), born(1980, 2026)
    ('2017', 'in the 1980s')
    """
    return f"in the {year}s" if year % 10 == 0 and told_year(year + 1, this_year) == year else str(year)


def day(on: date | None) -> str:
    """A date as people write it.

    >>> day(date(2026, 3, 7))
    '7 Mar 2026'
    """
    return "" if on is None else f"{on.day} {on:%b %Y}"


def month(year_month: str | None) -> str:
    """`2026-06` in words.

    >>> month("2026-06")
    'Jun 2026'
    """
    if not year_month or not re.fullmatch(r"\d{4}-(0[1-9]|1[0-2])(-\d{2})?", year_month):
        return ""
    return f"{date(int(year_month[:4]), int(year_month[5:7]), 1):%b %Y}"


def london_day(at: datetime | None) -> str:
    """The day of an instant in London."""
    return "" if at is None else day(at.astimezone(LONDON).date())


def london_time(at: datetime | None) -> str:
    """The time of day of an instant in London, such as 14:40."""
    return "" if at is None else f"{at.astimezone(LONDON):%H:%M}"


def telephone(number: str) -> str:
    """The target of a `tel:` link; empty if the text is no number.

    >>> telephone("01632 960 104"), telephone("javascript:alert(1)")
    ('tel:01632960104', '')
    """
    digits = re.sub(r"[ ()-]", "", number)
    return f"tel:{digits}" if re.fullmatch(r"\+?\d{3,15}", digits) else ""
