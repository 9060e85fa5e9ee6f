"""Six flows of three organisations: how each writes an extract, and how often it gets something wrong.

The rates are averages; `records` scales them from 1 / 1.2 for a settled, majority family upwards, as studies of linkage
error find it: minority names x 1.6, moved within two years x 1.4, looked after x 1.7, most deprived fifth x 1.2 (after
Harron et al. 2017 on hospital records, Bohensky et al. 2010, and SAIL and ECHILD on looked-after children; the factors
themselves are assumptions).  Sources of the levels: HES-PDS (domain.md section 6: sex or date of birth wrong or missing
in .1 % of hospital records, postcode differing in 53 % over many years: ours hold about a tenth outdated over some
two); CP-IS's gate of 95 % valid NHS numbers; DfE's count of pupils with a UPN (above 99 %).  Police, housing,
social-care and early-help levels are assumptions: worse than health for every field, as those are typed at a doorstep
or over a telephone and no number checks them.  That half of schools' contacts have no date of birth is one, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Errors:
    """Shares of rows with one fault each; `*_held` are shares of rows that have the identifier at all."""

    given_typo: float
    family_typo: float
    variant: float  # another spelling, where the name has one
    known_as: float  # the short form in place of the name, where there is one
    swapped: float  # given and family name
    reordered: float  # a double surname halved, turned round or joined otherwise, where there is one
    former: float  # the surname before marriage, where there is one
    dob_missing: float
    dob_digit: float
    dob_swapped: float  # day and month, where both could be
    dob_default: float
    adult_dob_missing: float
    stale: float  # still the home before, right after a move; halves every two years
    postcode_typo: float
    postcode_missing: float
    sex_missing: float
    sex_wrong: float
    nhs_held: float
    nhs_bad: float
    nhs_superseded: float  # holds the superseded number as if current, where there is one
    upn_held: float
    uprn_held: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """One nightly extract: its columns in its own words, its date format, its codes, its faults."""

    agency: str
    flow: str
    file: str
    id_prefix: str
    columns: Mapping[str, str]  # canonical field -> column, as mapping.toml has it
    date_format: str
    sexes: Mapping[str, str]  # ours -> its own
    roles: Mapping[str, str]
    shields: Mapping[str, str]
    default_date: tuple[str, ...]
    duplicates: bool
    capitals: bool  # writes names in capitals, without accents
    contact: str
    errors: Errors
    relations: Mapping[str, str] = field(default_factory=dict)  # ours -> its own

    @property
    def key(self) -> str:
        return f"{self.agency}/{self.flow}"


_PLAIN: Final = {
    "birth_parent": "Parent", "step_parent": "Step-parent", "carer": "Carer", "sibling": "Sibling",
    "partner": "Partner",
    "parental_responsibility": "PR",
}  # fmt: skip

EDUCATION: Final = Flow(
    agency="northshire-council",
    flow="education",
    file="pupils-and-contacts.csv",
    id_prefix="EDU",
    columns={
        "local_id": "PersonID", "person_role": "PersonType", "given_name": "Forename", "known_as": "PreferredForename",
        "family_name": "Surname", "former_family_name": "FormerSurname", "date_of_birth": "DOB",
        "dob_quality": "DOBStatus",
        "sex": "Sex", "postcode": "Postcode", "uprn": "UPRN", "upn": "UPN", "former_upn": "FormerUPN", "uln": "ULN",
        "shield": "AddressProtected", "sever_ref": "SeveranceRef",
    },
    date_format="%d/%m/%Y",
    sexes={"M": "M", "F": "F"},
    roles={"child": "Pupil", "parent": "Parent", "carer": "Carer"},
    shields={"none": "N", "address": "Y", "full": "X"},
    default_date=(),
    duplicates=False,
    capitals=False,
    contact="education-safeguarding",
    errors=Errors(
        given_typo=0.010, family_typo=0.009, variant=0.04, known_as=0.03, swapped=0.002, reordered=0.20, former=0.10,
        dob_missing=0.001, dob_digit=0.003, dob_swapped=0.002, dob_default=0.0, adult_dob_missing=0.40, stale=0.28,
        postcode_typo=0.006, postcode_missing=0.006, sex_missing=0.0, sex_wrong=0.002, nhs_held=0.0, nhs_bad=0.0,
        nhs_superseded=0.0, upn_held=0.99, uprn_held=0.70,
    ),
    relations={**_PLAIN, "birth_parent": "Parent", "carer": "Carer"},
)  # fmt: skip

SOCIAL_CARE: Final = Flow(
    agency="northshire-council",
    flow="social_care",
    file="ssd_person.csv",
    id_prefix="SC",
    columns={
        "local_id": "pers_person_id", "person_role": "pers_type", "given_name": "pers_forename",
        "known_as": "pers_known_as", "family_name": "pers_surname", "former_family_name": "pers_former_surname",
        "date_of_birth": "pers_dob", "dob_quality": "pers_dob_quality", "sex": "pers_sex",
        "postcode": "addr_address_postcode",
        "uprn": "addr_address_uprn", "nhs_number": "pers_nhs_number", "upn": "pers_upn",
        "shield": "pers_address_restriction",
        "sever_ref": "pers_severance_ref",
    },
    date_format="%Y-%m-%d",
    sexes={"M": "M", "F": "F"},
    roles={"child": "CHI", "parent": "PAR", "carer": "CAR"},
    shields={"none": "", "address": "ADDRESS", "full": "SEALED"},
    default_date=(),
    duplicates=False,
    capitals=False,
    contact="childrens-social-care-duty",
    errors=Errors(
        given_typo=0.020, family_typo=0.018, variant=0.10, known_as=0.09, swapped=0.005, reordered=0.30, former=0.15,
        dob_missing=0.010, dob_digit=0.006, dob_swapped=0.005, dob_default=0.004, adult_dob_missing=0.06, stale=0.30,
        postcode_typo=0.008, postcode_missing=0.03, sex_missing=0.004, sex_wrong=0.003, nhs_held=0.62, nhs_bad=0.004,
        nhs_superseded=0.5, upn_held=0.80, uprn_held=0.60,
    ),
    relations={**_PLAIN, "birth_parent": "BP", "step_parent": "SP", "carer": "CA", "sibling": "SI"},
)  # fmt: skip

EARLY_HELP: Final = Flow(
    agency="northshire-council",
    flow="early_help",
    file="family-members.csv",
    id_prefix="EH",
    columns={
        "local_id": "Person Ref", "person_role": "Member Type", "given_name": "First Name", "known_as": "Known As",
        "family_name": "Last Name", "date_of_birth": "Date of Birth", "sex": "Gender", "postcode": "Post Code",
        "uprn": "UPRN", "nhs_number": "NHS No", "upn": "UPN",
    },
    date_format="%d-%m-%Y",
    sexes={"M": "Male", "F": "Female"},
    roles={"child": "Child", "parent": "Parent", "carer": "Carer"},
    shields={},
    default_date=("01-01",),
    duplicates=False,
    capitals=False,
    contact="early-help-hub",
    errors=Errors(
        given_typo=0.022, family_typo=0.018, variant=0.10, known_as=0.10, swapped=0.005, reordered=0.30, former=0.15,
        dob_missing=0.015, dob_digit=0.008, dob_swapped=0.006, dob_default=0.003, adult_dob_missing=0.12, stale=0.25,
        postcode_typo=0.010, postcode_missing=0.03, sex_missing=0.01, sex_wrong=0.003, nhs_held=0.30, nhs_bad=0.006,
        nhs_superseded=0.5, upn_held=0.70, uprn_held=0.60,
    ),
    relations=_PLAIN,
)  # fmt: skip

HOUSING: Final = Flow(
    agency="northshire-council",
    flow="housing",
    file="occupants.csv",
    id_prefix="H",
    columns={
        "local_id": "OCCUPANT_NO", "person_role": "OCCUPANT_TYPE", "given_name": "FORENAME", "family_name": "SURNAME",
        "date_of_birth": "BIRTH_DATE", "sex": "GENDER", "postcode": "POSTCODE", "uprn": "UPRN",
        "valid_from": "MOVED_IN",
    },
    date_format="%d/%m/%Y",
    sexes={"M": "M", "F": "F"},
    roles={"child": "DEP", "parent": "TEN", "carer": "OTH"},
    shields={},
    default_date=("01-01",),
    duplicates=False,
    capitals=True,
    contact="housing-options",
    errors=Errors(
        given_typo=0.020, family_typo=0.016, variant=0.12, known_as=0.08, swapped=0.006, reordered=0.35, former=0.10,
        dob_missing=0.05, dob_digit=0.010, dob_swapped=0.008, dob_default=0.006, adult_dob_missing=0.03, stale=0.06,
        postcode_typo=0.008, postcode_missing=0.004, sex_missing=0.05, sex_wrong=0.004, nhs_held=0.0, nhs_bad=0.0,
        nhs_superseded=0.0, upn_held=0.0, uprn_held=0.99,
    ),
    relations=_PLAIN,
)  # fmt: skip

HEALTH: Final = Flow(
    agency="northshire-icb",
    flow="health",
    file="csds_patients.csv",
    id_prefix="L",
    columns={
        "local_id": "LOCAL PATIENT IDENTIFIER (EXTENDED)", "person_role": "PERSON TYPE",
        "given_name": "PERSON GIVEN NAME",
        "family_name": "PERSON FAMILY NAME", "former_family_name": "PERSON PREVIOUS FAMILY NAME",
        "date_of_birth": "PERSON BIRTH DATE", "dob_quality": "BIRTH DATE STATUS", "sex": "PERSON STATED GENDER CODE",
        "postcode": "POSTCODE OF USUAL ADDRESS", "uprn": "UNIQUE PROPERTY REFERENCE NUMBER", "nhs_number": "NHS NUMBER",
        "superseded_nhs_number": "NHS NUMBER (SUPERSEDED)", "shield": "PDS SENSITIVE FLAG",
        "sever_ref": "SEVERANCE REF",
    },
    date_format="%Y%m%d",
    sexes={"M": "1", "F": "2"},
    roles={"child": "C", "parent": "A", "carer": "G"},
    shields={"none": "U", "address": "S", "full": "R"},
    default_date=(),
    duplicates=False,
    capitals=False,
    contact="safeguarding-children-team",
    errors=Errors(
        given_typo=0.007, family_typo=0.007, variant=0.03, known_as=0.01, swapped=0.002, reordered=0.20, former=0.15,
        dob_missing=0.0005, dob_digit=0.0015, dob_swapped=0.001, dob_default=0.0005, adult_dob_missing=0.0005,
        stale=0.30, postcode_typo=0.004, postcode_missing=0.004, sex_missing=0.0005, sex_wrong=0.001, nhs_held=0.985,
        nhs_bad=0.001, nhs_superseded=0.03, upn_held=0.0, uprn_held=0.80,
    ),
    relations={**_PLAIN, "birth_parent": "01", "step_parent": "02", "carer": "03"},
)  # fmt: skip

POLICE: Final = Flow(
    agency="northshire-police",
    flow="police",
    file="nominals.csv",
    id_prefix="P",
    columns={
        "local_id": "PERSON_URN", "local_nominal": "NOMINAL_REF", "person_role": "NOMINAL_TYPE",
        "given_name": "FORENAME_1", "known_as": "ALIAS_FORENAME", "family_name": "SURNAME",
        "former_family_name": "MAIDEN_NAME",
        "date_of_birth": "DATE_OF_BIRTH", "sex": "GENDER", "postcode": "POST_CODE", "uprn": "UPRN",
        "nhs_number": "NHS_NO",
        "pnc_id": "PNCID", "cro": "CRO_NO",
    },
    date_format="%d.%m.%Y",
    sexes={"M": "MALE", "F": "FEMALE"},
    roles={"child": "JUV", "parent": "ADULT", "carer": "ADULT2"},
    shields={},
    default_date=("01-01",),
    duplicates=True,
    capitals=True,
    contact="police-vulnerability-unit",
    errors=Errors(
        given_typo=0.030, family_typo=0.026, variant=0.16, known_as=0.13, swapped=0.008, reordered=0.35, former=0.10,
        dob_missing=0.025, dob_digit=0.012, dob_swapped=0.009, dob_default=0.010, adult_dob_missing=0.03, stale=0.40,
        postcode_typo=0.012, postcode_missing=0.06, sex_missing=0.01, sex_wrong=0.004, nhs_held=0.05, nhs_bad=0.02,
        nhs_superseded=0.3, upn_held=0.0, uprn_held=0.30,
    ),
    relations=_PLAIN,
)  # fmt: skip

FLOWS: Final = (EDUCATION, SOCIAL_CARE, EARLY_HELP, HOUSING, HEALTH, POLICE)

CONTACTS: Final[Mapping[str, Mapping[str, tuple[str, str, str]]]] = {
    "northshire-council": {
        "education-safeguarding": ("Education safeguarding team", "01632 960101", "01632 960199"),
        "childrens-social-care-duty": ("Children's social care duty team", "01632 960110", "01632 960199"),
        "early-help-hub": ("Early help hub", "01632 960120", ""),
        "early-help-schools": ("Early help: lead practitioner in a school", "01632 960121", ""),
        "housing-options": ("Housing options team", "01632 960130", "01632 960199"),
    },
    "northshire-icb": {
        "safeguarding-children-team": ("Safeguarding children team", "01632 960201", "01632 960299"),
        "health-visiting": ("Health visiting and school nursing", "01632 960210", ""),
        "camhs-duty": ("Children's mental health duty line", "01632 960220", "01632 960299"),
    },
    "northshire-police": {
        "police-vulnerability-unit": ("Protecting vulnerable people unit", "01632 960301", "01632 960399"),
        "missing-team": ("Missing from home team", "01632 960310", "01632 960399"),
    },
}
"""Numbers that Ofcom keeps free for drama: 01632 960000 to 960999."""
