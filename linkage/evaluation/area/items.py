"""Two years of coded items for every category that may be sent, coded as `agreements/vocabulary` lists them.

What happens to a child is drawn once (`Lives`) from the family's latent need and then told by each flow that would
know: a plan in social care becomes a CP-IS flag in health.  Levels are near England's: a child in need some 3 in 100
and a plan 4 in 1,000 at any time (DfE, *Children in need*), persistent absence a fifth and suspensions 6 in 100 a year
(DfE), an ED visit a third of children a year (NHS England), SEN support 14 and plans 5 in 100 (DfE).  Need is a device
of this generator: it has no column anywhere.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from linkage.evaluation.area.families import CHILD, WINDOW, Area, Days, Flags, Ints, Longs, Rng
from linkage.evaluation.area.records import Numbers, Rows

NAT: Final = np.datetime64("NaT", "D")
DAY: Final = np.timedelta64(1, "D")
COLUMNS: Final = (
    "row", "code_system", "code", "number", "occurred_on", "recorded_on", "ended_on", "role", "regime", "opinion",
    "outcome_code", "contact_ref", "origin",
)  # fmt: skip
LEADS: Final = ("SCHOOL", "HEALTH", "COUNCIL", "VOLUNTARY", "HOUSING")
PLANS: Final = ("NEG", "EMO", "PHY", "SAB", "MUL")

Picked = npt.NDArray[np.object_]
Texts = Sequence[str] | Picked


@dataclass(slots=True)
class Lives:
    """By person: from when to when (NaT: still, or never if there is no start)."""

    in_need: Days
    in_need_to: Days
    plan: Days
    plan_to: Days
    plan_kind: Ints  # into PLANS
    help: Days
    help_to: Days
    lead: Ints  # into LEADS
    violence: Longs  # incidents of domestic abuse at home, by person
    absence: npt.NDArray[np.float64]  # per cent of sessions attended


@dataclass(slots=True)
class Ledger:
    """The items of one flow, gathered by category."""

    rows: Rows
    area: Area
    rng: Rng
    parts: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))

    def put(
        self, category: str, places: Longs, system: str, code: str | Texts, on: Days, *, ended: Days | None = None,
        number: npt.NDArray[np.float64] | None = None, role: str | Texts = "subject", regime: str | Texts = "GENERAL",
        opinion: bool = False, outcome: str | Texts | None = None,
        contact: Texts | None = None, origin: str | None = None,
    ) -> None:  # fmt: skip
        """One item on each of these rows of the persons extract, dated `on`; what lies in the future is left out."""
        count = len(places)
        keep = on <= self.area.on
        late = np.minimum(on + self.rng.geometric(0.5, count).astype("timedelta64[D]") - DAY, self.area.on)
        part = {
            "row": places, "code_system": _column(system, count), "code": _column(code, count),
            "number": np.full(count, np.nan) if number is None else number, "occurred_on": on, "recorded_on": late,
            "ended_on": np.full(count, NAT) if ended is None else np.maximum(ended, on), "role": _column(role, count),
            "regime": _column(regime, count), "opinion": np.full(count, opinion),
            "outcome_code": _column(outcome, count),
            "contact_ref": _column(contact, count), "origin": _column(origin, count),
        }  # fmt: skip
        if count and not keep.all():
            part = {name: values[keep] for name, values in part.items()}
        self.parts[category].append(part)

    def tables(self) -> dict[str, pa.Table]:
        """A table a category, by date; `row` is the place in the persons extract."""
        made = {}
        for category, parts in sorted(self.parts.items()):
            columns = {name: np.concatenate([part[name] for part in parts]) for name in COLUMNS}
            order = np.lexsort((columns["row"], columns["occurred_on"]))
            dates = ("occurred_on", "recorded_on", "ended_on")
            made[category] = pa.table(
                {
                    name: pa.array(values[order], pa.date32()) if name in dates
                    else pa.array(values[order], from_pandas=name == "number")
                    if values.dtype != object else pa.array(values[order], pa.string())
                    for name, values in columns.items()
                }
            )  # fmt: skip
        return made

    def some_day(self, count: int, within: int = WINDOW) -> Days:
        days: Days = self.area.on - self.rng.integers(1, within, count).astype("timedelta64[D]")
        return days

    def pick(self, options: Sequence[str], count: int, weights: Sequence[float] | None = None) -> Picked:
        chances = None if weights is None else np.asarray(weights) / sum(weights)
        return np.array(options, object)[self.rng.choice(len(options), count, p=chances)]


def _choose(flags: Flags, yes: str | Texts | None, no: str | Texts | None) -> npt.NDArray[np.object_]:
    return np.where(flags, _column(yes, len(flags)), _column(no, len(flags)))


def _column(value: object, count: int) -> npt.NDArray[Any]:
    if value is None or isinstance(value, str):
        return np.full(count, value, object)
    return np.asarray(value, object)


def draw_lives(area: Area, known: Longs, early_help: Longs, rng: Rng) -> Lives:
    """What social care and early help do for whom; siblings mostly together."""
    people, total = area.people, len(area.people)
    need = area.need[people.family]
    together = rng.random(len(area.structure))[people.family]
    draw = np.where(rng.random(total) < 0.8, together, rng.random(total))
    is_known = np.zeros(total, bool)
    is_known[known] = True
    child = people.role == CHILD
    in_need = is_known & child & (draw < np.clip(0.22 + 0.7 * need, 0, 0.9))
    in_need |= people.looked_after | people.old_life
    start = area.on - rng.integers(30, WINDOW, len(area.structure)).astype("timedelta64[D]")
    since = np.where(in_need, start[people.family], NAT)
    length = rng.exponential(330, len(area.structure)).astype("timedelta64[D]")[people.family]
    until = np.where(in_need & (since + length < area.on) & ~people.looked_after, since + length, NAT)
    on_plan = in_need & ~people.looked_after & ~people.old_life & (draw < np.clip(0.75 * need - 0.06, 0, 0.5))
    plan = np.where(on_plan, np.minimum(since + 35 * DAY, area.on - 3 * DAY), NAT)
    plan_length = rng.exponential(300, len(area.structure)).astype("timedelta64[D]")[people.family] + 60 * DAY
    plan_to = np.where(on_plan & (plan + plan_length < area.on), plan + plan_length, NAT)
    until = np.where(on_plan & np.isnat(plan_to), NAT, np.where(until < plan_to, plan_to + 30 * DAY, until))
    until = np.where(until > area.on, NAT, until)
    helped = np.zeros(total, bool)
    helped[early_help] = True
    helped &= child
    help_start = (area.on - rng.integers(10, WINDOW, len(area.structure)).astype("timedelta64[D]"))[people.family]
    help_length = (60 + rng.exponential(200, len(area.structure))).astype("timedelta64[D]")[people.family]
    help_to = np.where(helped & (help_start + help_length < area.on), help_start + help_length, NAT)
    lead = rng.choice(len(LEADS), len(area.structure), p=[0.42, 0.14, 0.30, 0.10, 0.04])[people.family]
    violence = rng.poisson(np.clip(1.6 * area.need, 0, 3))[people.family]
    attended = np.clip(
        99.5 - rng.gamma(1.5, 2.6, total) * (1 + 2.2 * need) - np.where(rng.random(total) < 0.02, 40, 0), 5, 100
    )
    return Lives(
        in_need=since, in_need_to=until, plan=plan, plan_to=plan_to,
        plan_kind=rng.choice(5, len(area.structure), p=[0.49, 0.37, 0.08, 0.04, 0.02])[people.family].astype(np.int32),
        help=np.where(helped, help_start, NAT), help_to=help_to, lead=lead.astype(np.int32), violence=violence,
        absence=attended,
    )  # fmt: skip


def items_of(rows: Rows, area: Area, lives: Lives, numbers: Numbers, rng: Rng) -> dict[str, pa.Table]:
    """All items of one flow, a table a category."""
    ledger = Ledger(rows=rows, area=area, rng=rng)
    child = (area.people.role[rows.who] == CHILD) & ~rows.again
    places = np.flatnonzero(child)
    {
        "education": _education, "health": _health, "police": _police, "social_care": _social_care,
        "early_help": _early_help, "housing": _housing,
    }[rows.flow.flow](ledger, places, lives, numbers)  # fmt: skip
    return ledger.tables()


def _age(ledger: Ledger, who: Longs) -> npt.NDArray[np.float64]:
    return (ledger.area.on - ledger.area.people.born[who]).astype(np.int64) / 365.2425


def _repeat(ledger: Ledger, places: Longs, rate: npt.NDArray[np.float64]) -> Longs:
    """Rows repeated a Poisson number of times."""
    return np.repeat(places, ledger.rng.poisson(rate))


def _education(ledger: Ledger, places: Longs, lives: Lives, numbers: Numbers) -> None:
    area, rng, who = ledger.area, ledger.rng, ledger.rows.who[places]
    people = area.people
    age, need, count = _age(ledger, who), area.need[people.family[who]], len(places)
    old = people.old_life[who]
    school = np.where(numbers.school[who] > 0, numbers.school[who], 2001 + area.homes.hood[people.home[who]] // 2)
    urn = (150_000 + school * 7 % 40_000 + school % 7).astype(np.float64)
    start = area.on - (np.minimum(age - 3, np.where(age > 11.6, age - 11.2, 30)) * 365).clip(20).astype(
        "timedelta64[D]"
    )
    away = rng.random(count)
    status = np.where(
        old,
        "LEFT",
        np.where(away < 0.010 + 0.01 * need, "EHE", np.where(away < 0.016 + 0.03 * need, "CME", "ENROLLED")),
    )
    years = np.array(["N1", "N2", "R", *map(str, range(1, 15))], object)
    year = years[np.clip(np.floor(age + 0.1).astype(int) - 2, 0, 15)]
    ended = np.where(old, area.on - 400 * DAY, NAT)
    start = np.where(old, np.minimum(start, area.on - 600 * DAY), start)
    ledger.put("education.enrolment", places, "enrolment", status, start, ended=ended, number=urn, outcome=year)
    moved = np.flatnonzero((people.moved_on[who] > area.on - WINDOW * DAY) & (rng.random(count) < 0.4) & (age > 5.5))
    left = people.moved_on[who[moved]]
    ledger.put(
        "education.enrolment", places[moved], "enrolment", "LEFT", np.minimum(start[moved], left - 200 * DAY),
        ended=left,
        number=urn[moved] + 11, outcome=year[moved],
    )  # fmt: skip
    at_school = (age >= 4.9) & (status == "ENROLLED")
    for term in range(6):  # the half-terms before, latest first; the earlier four only where attendance is poor
        told = np.flatnonzero(at_school & ((term < 2) | (lives.absence[who] < 88)))
        share = np.clip(lives.absence[who[told]] + rng.normal(0, 2.0, len(told)), 0, 100).round(1)
        band = np.where(share > 90, "ABOVE_90", np.where(share > 50, "PERSISTENT", "SEVERE"))
        day = np.full(len(told), area.on - (60 * term + 8) * DAY)
        ledger.put("education.attendance", places[told], "attendance_band", band, day, number=share)
        poor = told[share <= 90]
        lost = np.round((100 - share[share <= 90]) * 0.7)
        authorised = np.round(lost * rng.random(len(poor)))
        day = np.full(len(poor), area.on - (60 * term + 8) * DAY)
        for code, sessions in (
            ("POSSIBLE", np.full(len(poor), 70.0)), ("AUTHORISED", authorised), ("UNAUTHORISED", lost - authorised),
        ):  # fmt: skip
            ledger.put("education.attendance", places[poor], "attendance_sessions", code, day, number=sessions)
    secondary = np.where(age > 11.5, 1.0, 0.18) * at_school
    hits = _repeat(ledger, np.arange(count), secondary * (0.05 + 1.1 * need**1.2))
    reasons = ("DB", "PP", "VA", "PA", "VP", "DM", "DA", "OW", "TH", "BU", "RA", "SM", "MT", "LG", "DS")
    ledger.put(
        "education.suspension", places[hits], "exclusion", ledger.pick(["SUSP", "PERM"], len(hits), [0.985, 0.015]),
        ledger.some_day(len(hits)), number=rng.integers(1, 11, len(hits)).astype(float),
        outcome=ledger.pick(reasons, len(hits), [50, 17, 16, 5, 4, 3, 3, 2, 1, 1, 1, 0.5, 0.5, 0.3, 0.2]),
    )  # fmt: skip
    draw = rng.random(count)
    plan, support = draw < 0.04 + 0.08 * need, draw < 0.15 + 0.35 * need
    told = np.flatnonzero((support | plan) & (age > 4))
    needs = ("SLCN", "SEMH", "ASD", "MLD", "SPLD", "OTH", "PD", "HI", "NSA", "SLD", "VI")
    ledger.put(
        "education.sen", places[told], "sen_provision", np.where(plan, "E", "K")[told],
        area.on - rng.integers(60, 1400, len(told)).astype("timedelta64[D]"), opinion=False,
        outcome=ledger.pick(needs, len(told), [25, 21, 19, 13, 11, 5, 2, 1, 3, 1, 1]),
    )  # fmt: skip
    poor_hood = area.decile[area.hood[people.family[who]]] <= 3
    meals = np.flatnonzero((rng.random(count) < np.where(poor_hood, 0.42, 0.15)) & (age > 4))
    ledger.put(
        "education.sen", places[meals], "disadvantage", ledger.pick(["FSM", "PP"], len(meals), [0.8, 0.2]),
        ledger.some_day(len(meals)),
    )  # fmt: skip
    file = np.flatnonzero((rng.random(count) < np.clip(0.012 + 0.9 * need, 0, 0.9)) & ~old)
    ledger.put(
        "education.safeguarding_file", places[file], "safeguarding_file",
        ledger.pick(["OPEN", "TRANSFERRED"], len(file), [0.86, 0.14]), ledger.some_day(len(file)),
    )  # fmt: skip


def _health(ledger: Ledger, places: Longs, lives: Lives, numbers: Numbers) -> None:
    area, rng, who = ledger.area, ledger.rng, ledger.rows.who[places]
    people = area.people
    age, need, count = _age(ledger, who), area.need[people.family[who]], len(places)
    old = people.old_life[who]
    practice = np.array([f"Q9{100 + hood % 900:03d}{hood % 10}" for hood in range(len(area.decile))], object)
    since = np.maximum(people.born[who] + 20 * DAY, area.on - rng.integers(100, 4000, count).astype("timedelta64[D]"))
    trace = np.where(old | (rng.random(count) < 0.012), "TRACED_NOT_REGISTERED", "TRACED_REGISTERED")
    trace = np.where(people.unnamed[who], "NOT_TRACED", trace)
    home = area.homes.hood[people.home[who]]
    ledger.put(
        "health.registration", places, "nhs_trace", trace, np.minimum(since, area.on - DAY), outcome=practice[home],
        ended=np.where(old, area.on - 380 * DAY, NAT),
    )  # fmt: skip
    team = np.where(age < 5, "HEALTH_VISITING", "SCHOOL_NURSING")
    team = np.where((age < 2) & (need > 0.4), "FAMILY_NURSE", team)
    ledger.put("health.registration", places, "health_team", team, np.minimum(since + 5 * DAY, area.on - DAY))
    live = np.where(old, 0.0, 1.0)
    visits = _repeat(ledger, np.arange(count), live * (0.42 + 0.9 * need) * np.where(age < 3, 1.7, 1.0))
    groups = (
        "ILLNESS",
        "INJURY",
        "HEAD_INJURY",
        "FRACTURE",
        "BURN_SCALD",
        "POISONING",
        "INGESTION",
        "ASSAULT",
        "BITE",
        "OTHER",
    )
    days = ledger.some_day(len(visits))
    fit = days > people.born[who[visits]]
    visits, days = visits[fit], days[fit]
    ledger.put(
        "health.emergency_attendance", places[visits], "ecds_group",
        ledger.pick(groups, len(visits), [48, 22, 8, 6, 2, 2, 2, 1, 1, 8]), days,
        outcome=ledger.pick(["RQX01", "RQX02"], len(visits), [0.8, 0.2]),
    )  # fmt: skip
    missed = _repeat(ledger, np.arange(count), live * (0.10 + 1.7 * need))
    days = ledger.some_day(len(missed))
    fit = days > people.born[who[missed]]
    missed, days = missed[fit], days[fit]
    services = ("OUTPATIENT", "DENTAL", "IMMUNISATION", "COMMUNITY_PAEDIATRICS", "THERAPY", "HEALTH_VISITING",
                "AUDIOLOGY_OPHTHALMOLOGY", "SCHOOL_NURSING", "PRIMARY_CARE")  # fmt: skip
    ledger.put(
        "health.not_brought", places[missed], "health_service",
        ledger.pick(services, len(missed), [28, 16, 13, 12, 9, 8, 7, 4, 3]), days,
    )  # fmt: skip
    late = rng.random(count) < np.clip(0.10 + 0.5 * need, 0, 0.8)
    for code, due in (("C1", -0.12), ("C2", 0.03), ("C8i", 0.14), ("C5", 1.1), ("C6ii", 2.4)):
        told = np.flatnonzero((age > due) & (age < due + 2.0) & (age < 5) & ~old & (rng.random(count) < 0.93))
        day = people.born[who[told]] + np.rint(due * 365 + rng.integers(0, 12, len(told))).astype("timedelta64[D]")
        recent = age[told] < due + 0.5
        concern = rng.random(len(told)) < (0.10 if code == "C6ii" else 0.0)
        outcome = np.where(late[told] & recent & (due > 0.1), "OVERDUE", np.where(concern, "DONE_ASQ_CONCERN", "DONE"))
        outcome = np.where(rng.random(len(told)) < 0.01, "DECLINED", outcome)
        ledger.put("health.developmental_review", places[told], "hv_review", code, day, outcome=outcome)
    draw = rng.random(count)
    camhs = np.flatnonzero((draw < (age > 5) * (0.025 + 0.20 * need)) & ~old)
    starts = ledger.some_day(len(camhs))
    ledger.put(
        "health.mental_health_open", places[camhs], "mental_health_service", "CAMHS", starts,
        ended=_ending(ledger, starts, 300), contact=["camhs-duty"] * len(camhs),
    )  # fmt: skip
    parent = np.flatnonzero((draw > 0.97 - 0.22 * need) & ~old)
    kind = np.where(age[parent] < 1, ledger.pick(["MATERNITY", "PERINATAL_MH"], len(parent)), "ADULT_MH")
    starts = np.maximum(ledger.some_day(len(parent)), people.born[who[parent]])
    ledger.put(
        "health.mental_health_open", places[parent], "mental_health_service", kind, starts,
        ended=_ending(ledger, starts, 400), role="parent",
    )  # fmt: skip
    plan = np.flatnonzero(~np.isnat(lives.plan[who]))
    ledger.put(
        "health.cp_is", places[plan], "cp_is", "CPP", lives.plan[who[plan]], ended=lives.plan_to[who[plan]],
        origin="northshire-council",
    )  # fmt: skip
    cared = np.flatnonzero(people.looked_after[who])
    ledger.put("health.cp_is", places[cared], "cp_is", "LAC", people.moved_on[who[cared]], origin="northshire-council")
    mothers = np.flatnonzero(
        np.isin(ledger.rows.who, people.mother[np.flatnonzero(people.unborn & ~np.isnat(lives.in_need))])
    )
    ledger.put(
        "health.cp_is", mothers, "cp_is", "UCPP", ledger.some_day(len(mothers), 100), role="parent",
        origin="northshire-council",
    )  # fmt: skip


def _ending(ledger: Ledger, starts: Days, mean: float) -> Days:
    ends = starts + (20 + ledger.rng.exponential(mean, len(starts))).astype("timedelta64[D]")
    return np.where(ends < ledger.area.on, ends, NAT)


def _police(ledger: Ledger, places: Longs, lives: Lives, numbers: Numbers) -> None:
    area, rng, who = ledger.area, ledger.rng, ledger.rows.who[places]
    people = area.people
    age, need, count = _age(ledger, who), area.need[people.family[who]], len(places)
    born = people.born[who]

    def since_birth(hits: Longs, within: int = WINDOW) -> tuple[Longs, Days]:
        days = ledger.some_day(len(hits), within)
        fit = days > born[hits]
        return hits[fit], days[fit]

    notices, days = since_birth(_repeat(ledger, np.arange(count), 0.45 + 2.0 * need))
    ledger.put(
        "police.protection_notice", places[notices], "protection_notice", "PPN", days,
        role=ledger.pick(["subject", "victim", "witness", "suspect"], len(notices), [0.55, 0.25, 0.15, 0.05]),
    )  # fmt: skip
    incidents, days = since_birth(np.repeat(np.arange(count), lives.violence[who]))
    grade = ledger.pick(["STANDARD", "MEDIUM", "HIGH"], len(incidents), [0.62, 0.28, 0.10])
    marac = np.where((grade == "HIGH") & (rng.random(len(incidents)) < 0.7), "MARAC", "NO_MARAC")
    role = np.where(age[incidents] > 15.5, ledger.pick(["witness", "victim", "suspect"], len(incidents)), "witness")
    crime = np.where(rng.random(len(incidents)) < 0.3, "LE", "GENERAL")
    ledger.put(
        "police.domestic_abuse", places[incidents], "dash_grade", grade, days, role=role, regime=crime, opinion=True,
        outcome=marac,
    )  # fmt: skip
    teen = np.where(age > 10.5, 1.0, 0.0) * (0.06 + 1.2 * need + 0.9 * people.looked_after[who])
    hits, days = since_birth(_repeat(ledger, np.arange(count), teen))
    ends = days + rng.integers(0, 4, len(hits)).astype("timedelta64[D]")
    ends = np.where(ends <= area.on, ends, NAT)
    interview = ledger.pick(["RHI_ACCEPTED", "RHI_DECLINED", "RHI_NOT_OFFERED"], len(hits), [0.5, 0.35, 0.15])
    contact = ["missing-team"] * len(hits)
    ledger.put(
        "police.missing_episode", places[hits], "missing_risk",
        ledger.pick(["NO_APPARENT", "LOW", "MEDIUM", "HIGH"], len(hits), [0.1, 0.3, 0.45, 0.15]), days, ended=ends,
        opinion=True, outcome=interview, contact=contact,
    )  # fmt: skip
    away = people.looked_after[who[hits]] & (rng.random(len(hits)) < 0.5)
    ledger.put(
        "police.missing_episode", places[hits[away]], "missing_type", "A", days[away], ended=ends[away],
        outcome=interview[away], contact=contact[: int(away.sum())],
    )  # fmt: skip
    taken, days = since_birth(np.flatnonzero(rng.random(count) < 0.01 + 0.10 * need))
    ledger.put("police.protection_power", places[taken], "protection_power", "S46", days, ended=days + 2 * DAY)
    orders, days = since_birth(np.flatnonzero(rng.random(count) < 0.02 + 0.12 * need))
    kinds = ledger.pick(["NMO", "DVPO", "BAIL", "CAWN", "SHPO"], len(orders), [0.4, 0.2, 0.25, 0.1, 0.05])
    ledger.put(
        "police.protection_power", places[orders], "protection_power", kinds, days,
        ended=_ending(ledger, days, 200), role=np.where(kinds == "BAIL", "witness", "victim"),
        regime=np.where(np.isin(kinds, ["BAIL", "SHPO"]), "LE", "GENERAL"),
    )  # fmt: skip
    arrested = np.flatnonzero(numbers.suspects[ledger.rows.who] & ~ledger.rows.again)
    days = ledger.some_day(len(arrested))
    stages = ("ARREST", "VOLUNTARY", "RUI", "CHARGE", "NFA", "OUT_OF_COURT", "COURT")
    ledger.put(
        "police.custody", arrested, "custody", ledger.pick(stages, len(arrested), [28, 12, 14, 16, 16, 8, 6]), days,
        ended=_ending(ledger, days, 150), role="suspect", regime="LE",
    )  # fmt: skip
    victims, days = since_birth(np.flatnonzero(rng.random(count) < 0.05 + 0.1 * need))
    ledger.put(
        "police.custody", places[victims], "custody", ledger.pick(["CHARGE", "COURT", "NFA"], len(victims)), days,
        ended=_ending(ledger, days, 200), role=ledger.pick(["victim", "witness"], len(victims)), regime="LE",
    )  # fmt: skip


def _social_care(ledger: Ledger, places: Longs, lives: Lives, numbers: Numbers) -> None:
    area, rng, who = ledger.area, ledger.rng, ledger.rows.who[places]
    people = area.people
    need, count = area.need[people.family[who]], len(places)
    since, until = lives.in_need[who], lives.in_need_to[who]
    sources = (
        "6",
        "2A",
        "3A",
        "3E",
        "1A",
        "3B",
        "5B",
        "5D",
        "3F",
        "8",
        "9",
        "4",
        "5C",
        "2B",
        "3C",
        "1C",
        "1D",
        "7",
        "10",
    )
    weights = [30, 19, 6, 6, 7, 4, 7, 6, 4, 4, 2, 2, 3, 1, 1, 1, 1, 1, 1]
    hits = np.repeat(np.arange(count), 1 + rng.poisson(0.3 + 1.2 * need))
    referred = ~np.isnat(since[hits])
    day = np.where(referred & (rng.random(len(hits)) < 0.6), since[hits] - 5 * DAY, ledger.some_day(len(hits)))
    outcome = np.where(
        referred, ledger.pick(["ASSESSMENT", "STRATEGY", "ADVICE"], len(hits), [0.7, 0.15, 0.15]),
        ledger.pick(["NFA", "ADVICE", "EARLY_HELP", "ASSESSMENT"], len(hits), [0.4, 0.3, 0.2, 0.1]),
    )  # fmt: skip
    fresh = day > area.on - 3 * DAY
    outcome = np.where(fresh, "OPEN", outcome)
    ledger.put(
        "social_care.contact", places[hits], "referral_source", ledger.pick(sources, len(hits), weights), day,
        ended=np.where(fresh, NAT, np.minimum(day + 2 * DAY, area.on)), outcome=outcome,
    )  # fmt: skip
    need_rows = np.flatnonzero(~np.isnat(since))
    closed = ~np.isnat(until[need_rows])
    closures = ledger.pick(["RC8", "RC9", "RC7", "RC5", "STEPPED_DOWN"], len(need_rows), [40, 18, 22, 8, 12])
    end_code = _choose(closed, closures, None)
    end_code[people.old_life[who[need_rows]] & closed] = "RC7"
    codes = ledger.pick(
        ["N1", "N2", "N3", "N4", "N5", "N6", "N7", "N8", "N0"], len(need_rows), [57, 8, 3, 9, 13, 3, 1, 3, 3]
    )
    codes = np.where(people.unaccompanied[who[need_rows]], "N8", codes)
    ledger.put(
        "social_care.child_in_need", places[need_rows], "cin_need", codes, since[need_rows], ended=until[need_rows],
        outcome=end_code,
    )  # fmt: skip
    factors = ("3B", "4B", "17A", "16A", "4A", "2B", "1B", "18C", "3A", "20", "6A", "14A", "5A", "10A", "11A", "24A",
    "13A", "15A",
               "2A", "1A", "19C", "7A", "12A", "21")  # fmt: skip
    assessed = _repeat(ledger, need_rows, np.full(len(need_rows), 1.7))
    ledger.put(
        "social_care.child_in_need", places[assessed], "cin_factor",
        ledger.pick(factors, len(assessed), [17, 16, 9, 8, 7, 6, 6, 5, 4, 4, 3, 3, 3, 2, 1, 1, 1, 2, 1, 1, 1, 1, 0.5,
        1]),
        np.minimum(since[assessed] + 40 * DAY, area.on), opinion=True,
    )  # fmt: skip
    planned = need_rows[rng.random(len(need_rows)) < 0.6]
    ledger.put(
        "social_care.child_in_need", places[planned], "cin_plan", "PLAN", np.minimum(since[planned] + 45 * DAY,
        area.on),
        ended=until[planned],
    )  # fmt: skip
    enquiry = need_rows[(rng.random(len(need_rows)) < 0.25) | ~np.isnat(lives.plan[who[need_rows]])]
    on_plan = ~np.isnat(lives.plan[who[enquiry]])
    day = np.where(on_plan, lives.plan[who[enquiry]] - 14 * DAY, since[enquiry] + 6 * DAY)
    ledger.put(
        "social_care.child_protection", places[enquiry], "cp_enquiry", "S47", day,
        ended=np.minimum(day + 15 * DAY, area.on), outcome=np.where(on_plan, "ICPC", "NFA"),
    )  # fmt: skip
    plan = np.flatnonzero(~np.isnat(lives.plan[who]))
    over = ~np.isnat(lives.plan_to[who[plan]])
    ledger.put(
        "social_care.child_protection", places[plan], "cp_category", np.array(PLANS,
        object)[lives.plan_kind[who[plan]]],
        lives.plan[who[plan]], ended=lives.plan_to[who[plan]], number=rng.poisson(0.25, len(plan)).astype(float),
        outcome=_choose(over, ledger.pick(["STEPPED_DOWN", "ENDED"], len(plan), [0.7, 0.3]), None), opinion=True,
    )  # fmt: skip
    cared = np.flatnonzero(people.looked_after[who])
    day = people.moved_on[who[cared]]
    legal = np.where(
        people.unaccompanied[who[cared]],
        "V2",
        ledger.pick(["C2", "C1", "V2", "L1", "J1"], len(cared), [60, 18, 20, 1, 1]),
    )
    ledger.put("social_care.looked_after", places[cared], "legal_status", legal, day)
    ledger.put(
        "social_care.looked_after", places[cared], "placement",
        ledger.pick(["U6", "U4", "U3", "U1", "K2", "P1", "H5", "R1", "P2"], len(cared), [34, 22, 12, 5, 10, 7, 7, 2,
        1]), day,
    )  # fmt: skip
    before = np.flatnonzero(people.old_life[who])
    day = np.full(len(before), area.on - 700 * DAY)
    ledger.put(
        "social_care.looked_after",
        places[before],
        "legal_status",
        "C2",
        day,
        ended=np.full(len(before), area.on - 380 * DAY),
        outcome="E8",
    )
    open_now = need_rows[~closed]
    team = np.where(
        people.looked_after[who[open_now]], "LOOKED_AFTER",
        np.where(
            ~np.isnat(lives.plan[who[open_now]]) & np.isnat(lives.plan_to[who[open_now]]), "CHILD_PROTECTION",
            ledger.pick(["ASSESSMENT", "FAMILY_HELP", "DISABLED_CHILDREN"], len(open_now), [0.3, 0.6, 0.1]),
        ),
    )  # fmt: skip
    ledger.put(
        "social_care.allocated_worker", places[open_now], "team", team, np.minimum(since[open_now] + 2 * DAY, area.on)
    )
    shut = need_rows[closed]
    ledger.put(
        "social_care.allocated_worker", places[shut], "team", "ASSESSMENT", since[shut] + 2 * DAY, ended=until[shut]
    )


def _early_help(ledger: Ledger, places: Longs, lives: Lives, numbers: Numbers) -> None:
    who = ledger.rows.who[places]
    told = np.flatnonzero(~np.isnat(lives.help[who]))
    start, end = lives.help[who[told]], lives.help_to[who[told]]
    lead = np.array(LEADS, object)[lives.lead[who[told]]]
    contact = np.where(lead == "SCHOOL", "early-help-schools", "early-help-hub")
    reasons = ("PARENTING", "BEHAVIOUR", "EMOTIONAL_WELLBEING", "ATTENDANCE", "SEND", "FAMILY_CONFLICT",
    "HOUSING_MONEY",
               "ROUTINES", "YOUNG_CARER", "OTHER")  # fmt: skip
    why = ledger.pick(
        ("GOALS_MET", "STEPPED_DOWN", "DISENGAGED", "STEPPED_UP", "MOVED", "OTHER"), len(told), [46, 16, 18, 12, 4, 4]
    )
    outcome = _choose(np.isnat(end), None, why)
    ledger.put(
        "early_help.episode", places[told], "early_help_reason",
        ledger.pick(reasons, len(told), [24, 17, 17, 13, 9, 7, 6, 4, 2, 1]), start, ended=end, outcome=outcome,
        contact=contact,
    )  # fmt: skip
    ledger.put("early_help.episode", places[told], "lead_practitioner", lead, start, ended=end, contact=contact)


def _housing(ledger: Ledger, places: Longs, lives: Lives, numbers: Numbers) -> None:
    area, rng, who = ledger.area, ledger.rng, ledger.rows.who
    people = area.people
    everyone = np.arange(len(who))
    need = area.need[people.family[who]]
    family_draw = rng.random((4, len(area.structure)))
    begun = np.where(
        np.isnat(people.moved_on[who]),
        area.on - rng.integers(800, 5000, len(who)).astype("timedelta64[D]"),
        people.moved_on[who],
    )
    family = people.family[who]
    kinds = np.array(["SECURE", "ASSURED", "FLEXIBLE", "INTRODUCTORY", "LICENCE"], object)
    kind = kinds[np.searchsorted(np.cumsum([0.5, 0.3, 0.1, 0.08]), family_draw[0][family])]
    crowd = np.bincount(family)[family]
    crowded: Flags = family_draw[1][family] < np.clip(0.05 * (crowd - 2), 0, 0.4)
    ledger.put(
        "housing.tenancy", everyone, "tenancy", kind, begun, outcome=np.where(crowded, "OVERCROWDED", "NOT_OVERCROWDED")
    )
    owed = np.flatnonzero(family_draw[2][family] < 0.03 + 0.35 * need)
    start = (area.on - rng.integers(5, WINDOW, len(area.structure)).astype("timedelta64[D]"))[family[owed]]
    length = rng.integers(40, 400, len(area.structure)).astype("timedelta64[D]")[family[owed]]
    ends = np.where(start + length < area.on, start + length, NAT)
    duty = np.array(["PREVENTION", "RELIEF", "MAIN"], object)[
        rng.choice(3, len(area.structure), p=[0.5, 0.3, 0.2])[family[owed]]
    ]
    ledger.put("housing.homelessness", owed, "homelessness", duty, start, ended=ends)
    housed = duty != "PREVENTION"
    ledger.put(
        "housing.homelessness", owed[housed], "housing_event", "TEMPORARY", start[housed] + 3 * DAY, ended=ends[housed]
    )
    event = np.flatnonzero((family_draw[3][family] < 0.02 + 0.12 * need) & (people.role[who] != CHILD))
    ledger.put(
        "housing.homelessness", event, "housing_event",
        ledger.pick(["ASB", "POSSESSION", "EVICTION"], len(event), [0.6, 0.3, 0.1]), ledger.some_day(len(event)),
    )  # fmt: skip
