"""The families of the small area: who they are, and what each organisation holds on them."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Mapping
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Final

from tests.builders import COUNCIL, ICB, POLICE
from tests.builders_area import NIGHT, Area, Extract, Someone, nhs_number, the_time

ROBIN: Final = Someone(
    id="c01", given="Robin", family="Samplewick", born="2017-03-07", postcode="NS1 1AA", uprn="100000000011",
    nhs=nhs_number(11),
)  # fmt: skip
KIT: Final = Someone(
    id="c02", given="Kit", family="Samplewick", born="2019-09-21", postcode="NS1 1AA", uprn="100000000011",
    nhs=nhs_number(12),
)  # fmt: skip
DANA: Final = Someone(
    id="a01", given="Dana", family="Samplewick", born="1988-01-30", postcode="NS1 1AA", uprn="100000000011",
    nhs=nhs_number(13), role="parent",
)  # fmt: skip
"""Robin is on a child protection plan; Kit is the sibling, Dana the mother.  Everybody knows them."""

ADA: Final = Someone(
    id="c03", given="Ada", family="Twinnery", born="2018-05-05", postcode="NS2 2BB", nhs=nhs_number(21)
)
IDA: Final = Someone(
    id="c04", given="Ida", family="Twinnery", born="2018-05-05", postcode="NS2 2BB", nhs=nhs_number(22)
)
"""Twins; health has their given names the wrong way round."""

BIRTH: Final = Someone(
    id="c05", given="Marlo", family="Oldacre", born="2016-11-02", sex="M", postcode="NS3 3CC", nhs=nhs_number(31)
)
ADOPTED: Final = Someone(
    id="c06", given="Milo", family="Newbrook", born="2016-11-02", sex="M", postcode="NS4 4DD", nhs=nhs_number(32)
)
MAX: Final = Someone(
    id="c07", given="Max", family="Oldacre", born="2014-04-14", sex="M", postcode="NS3 3CC", nhs=nhs_number(33)
)
"""One child before and after an adoption order, and the sibling by birth."""

NOOR: Final = Someone(
    id="c08", given="Noor", family="Hiddenham", born="2015-06-16", postcode="NS5 5EE", uprn="100000000055",
    nhs=nhs_number(41),
)  # fmt: skip
RHEA: Final = Someone(
    id="a02", given="Rhea", family="Hiddenham", born="1985-02-02", postcode="NS5 5EE", nhs=nhs_number(42),
    role="parent",
)  # fmt: skip
"""Rhea is in a refuge: social care alone says so."""

FAY: Final = Someone(
    id="c09", given="Fay", family="Sealbury", born="2013-08-08", postcode="NS6 6FF", nhs=nhs_number(51)
)
"""Shielded altogether, by social care alone."""

ELI: Final = Someone(
    id="c10", given="Eli", family="Earlyfield", born="2014-12-12", sex="M", postcode="NS7 7GG", nhs=nhs_number(61)
)
"""No social worker; an early help episode led by the school."""

PAT: Final = Someone(
    id="c11", given="Pat", family="Mayberry", born="2012-10-10", postcode="NS8 8HH", nhs=nhs_number(71)
)
VIC: Final = Someone(
    id="c12", given="Vic", family="Downing", born="2011-07-17", sex="M", postcode="NS9 9JJ", nhs=nhs_number(81)
)
"""A victim of domestic abuse, in custody records as a witness."""
SOLO: Final = Someone(id="c13", given="Solveig", family="Onlywood", born="2012-02-29", postcode="NS10 1KK")
"""Known to one school and to nobody else."""
NOBODY: Final = Someone(
    id="-", given="Nil", family="Nowhere", born="2013-08-09", postcode="NS6 6FG", nhs=nhs_number(99)
)
CHILDREN: Final = (ROBIN, KIT, ADA, IDA, MAX, NOOR, FAY, ELI, PAT, VIC)


def strangers(count: int = 150) -> list[Someone]:
    """Children whom education and health know and no test is about: among a dozen people alone every neighbour would
    be likely to be the same person."""
    given = ("Bel", "Cor", "Den", "Fil", "Gar", "Hol", "Jen", "Lor", "Mor", "Nev", "Ory", "Ral", "Sel", "Tam", "Wen")
    ends = ("a", "in", "o", "us", "el", "ik", "yn", "ard", "ette", "is")
    return [
        Someone(
            id=f"s{n}", given=f"{given[n % 15]}{ends[n // 15 % 10]}", family=f"{given[n * 7 % 15]}{ends[n * 3 % 10]}wood{n}",
            born=f"{2009 + n % 14}-{1 + n * 5 % 12:02d}-{1 + n * 11 % 28:02d}", sex="FM"[n % 2],
            postcode=f"NS{20 + n % 60} {1 + n % 9}{'ABDEFGHJLN'[n % 10]}{'PQRSTUWXYZ'[n // 10 % 10]}", nhs=nhs_number(1000 + n),
        )
        for n in range(count)
    ]  # fmt: skip


def extracts(*without: Someone) -> Mapping[tuple[str, str], Extract]:
    """What each flow holds tonight, but for the people left out."""
    education, social_care, early_help, housing, health, police = (Extract() for _ in range(6))
    for stranger in strangers():
        education.knows(stranger, nhs_number="")
        health.knows(stranger)
    for child in CHILDREN:
        education.knows(child, nhs_number=child.nhs if child in (ADA, IDA) else "")
        education.item(
            child, "education.enrolment", "ENROLLED", "2025-09-02", number="123456", outcome_code="3", contact="duty"
        )
        education.item(child, "education.attendance", "PERSISTENT", "2026-10-23", number="84.5")
        health.knows(child)
        health.item(child, "health.registration", "TRACED_REGISTERED", "2020-01-06", outcome_code="Y01234")
    education.knows(ADOPTED, SOLO, nhs_number="")
    education.item(SOLO, "education.attendance", "SEVERE", "2026-10-23", number="41")
    education.item(ADOPTED, "education.enrolment", "ENROLLED", "2025-09-02", number="654321", outcome_code="4")
    health.knows(BIRTH, ADOPTED, sever_ref="sever-1")
    for child in (BIRTH, ADOPTED):
        health.item(child, "health.registration", "TRACED_REGISTERED", "2020-01-06", outcome_code="Y01234")
    health.item(BIRTH, "health.not_brought", "OUTPATIENT", "2026-02-02")
    twins = {ADA.id: IDA.given, IDA.id: ADA.given}
    health.people = [{**row, "given_name": twins.get(row["local_id"], row["given_name"])} for row in health.people]

    # Robin, Kit and Dana
    social_care.knows(ROBIN, KIT, DANA, uprn="")
    social_care.tie(DANA, "birth_parent", ROBIN).tie(DANA, "birth_parent", KIT)
    social_care.item(ROBIN, "social_care.child_protection", "NEG", "2026-06-12", number="1", contact="assessment")
    social_care.item(ROBIN, "social_care.allocated_worker", "ASSESSMENT", "2026-06-12", contact="assessment")
    social_care.item(KIT, "social_care.contact", "1A", "2026-06-01", outcome_code="ASSESSMENT")
    health.item(ROBIN, "health.not_brought", "OUTPATIENT", "2026-05-04")
    health.item(ROBIN, "health.emergency_attendance", "INJURY", "2026-09-01", outcome_code="RX123")
    health.item(ROBIN, "health.mental_health_open", "CAMHS", "2026-08-01")
    police.knows(ROBIN, DANA)
    police.item(
        ROBIN, "police.missing_episode", "MEDIUM", "2026-10-01", ended_on="2026-10-02", role="subject", regime="LE"
    )
    police.item(ROBIN, "police.custody", "VOLUNTARY", "2026-10-03", role="witness", regime="LE")
    police.item(DANA, "police.domestic_abuse", "HIGH", "2026-09-09", role="victim", regime="LE")

    # The old identity of a child who was adopted
    social_care.knows(BIRTH, MAX)
    social_care.tie(MAX, "sibling", BIRTH)
    social_care.item(BIRTH, "social_care.child_in_need", "N1", "2024-12-01", ended_on="2025-12-01", outcome_code="RC7")
    social_care.item(MAX, "social_care.child_in_need", "N1", "2025-12-01")

    # Protected
    social_care.knows(NOOR)
    social_care.knows(RHEA, shield="address")
    social_care.tie(RHEA, "birth_parent", NOOR)
    social_care.item(NOOR, "social_care.contact", "1A", "2026-09-01", outcome_code="ASSESSMENT")
    health.item(NOOR, "health.emergency_attendance", "INJURY", "2026-09-02", outcome_code="RX123")
    health.item(NOOR, "health.not_brought", "DENTAL", "2026-08-03")
    social_care.knows(FAY, shield="full")
    social_care.item(FAY, "social_care.contact", "1A", "2026-09-01", outcome_code="ASSESSMENT")

    early_help.knows(ELI)
    early_help.item(ELI, "early_help.episode", "PARENTING", "2026-03-03", contact="school-lead")
    early_help.item(ELI, "early_help.episode", "SCHOOL", "2026-03-03", contact="school-lead")
    housing.knows(KIT)
    housing.item(KIT, "housing.tenancy", "SECURE", "2022-02-02", outcome_code="NOT_OVERCROWDED")
    police.knows(VIC)
    police.item(VIC, "police.domestic_abuse", "HIGH", "2026-08-08", role="victim", regime="LE")
    police.item(VIC, "police.custody", "RUI", "2026-08-09", role="witness", regime="LE")

    found = {
        (COUNCIL, "education"): education, (COUNCIL, "social_care"): social_care, (COUNCIL, "early_help"): early_help,
        (COUNCIL, "housing"): housing, (ICB, "health"): health, (POLICE, "police"): police,
    }  # fmt: skip
    gone = {person.id for person in without}
    for extract in found.values():
        extract.people = [row for row in extract.people if row["local_id"] not in gone]
        extract.ties = [tie for tie in extract.ties if not gone & set(tie[:2])]
        extract.items = {
            category: [row for row in rows if row["local_id"] not in gone] for category, rows in extract.items.items()
        }
    return found


def a_linked_area(to: Path) -> Area:
    """The small area on the morning after its first night, in a folder of one's own.  Housing is two days late."""
    shutil.copytree(_linked(), to)
    return Area(to)


@cache
def _linked() -> Path:
    """The same, made once: encoding, pushing and linking takes seconds."""
    folder = Path(tempfile.mkdtemp(prefix="northshire-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with the_time(NIGHT):
        area = Area(folder)
        area.install()
        area.push(extracts(), at={(COUNCIL, "housing"): NIGHT - timedelta(days=2)})
        done = area.link()
        assert (done["state"], done["batches"]) == ("published", {"accepted": 6}), done
        area.close()
    return folder
