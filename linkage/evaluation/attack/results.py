"""What an attack achieved, beside what a blind guess would have: one `AttackResult` a case, and how they are held.

A ceiling is an upper bound for the share re-identified; every ceiling that fits a result holds for it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from importlib import resources
from pathlib import Path
from typing import Any, Final

OPERATOR: Final = "operator, or thief of the linkage vault and its key"
"""Whoever reads the encodings.  A thief without the vault's key reads nothing at all."""
APART: Final = "the same, were birth year and sex sealed apart from the encodings"
DISK: Final = "thief of all disks without the vault's key"
OTHERWISE: Final = "operator, were other things told: what a change of the design would do"
INSIDER: Final = "operator who knows some children's records beside their encodings"
KEYLESS: Final = "whoever has the encodings and all keys but one"
AGENCY: Final = "an agency that is let see encodings: it holds the linkage key"
_ADVERSARIES: Final = (
    ("dictionary", "control*", AGENCY),
    ("dictionary", "*", KEYLESS),
    ("known_pairs", "*", INSIDER),
    ("equality", "withheld*", APART),
    ("households", "disk*", DISK),
    ("households", "were*", OTHERWISE),
    ("*graph*", "households + *", OPERATOR),
    ("*graph*", "*", APART),
    ("*", "*", OPERATOR),
)
"""Attack, case (patterns), and whose it is; the first that fits."""

Z95: Final = 1.959963984540054


class BadCeilings(ValueError):
    """A file of ceilings can't be used; the message names the entry and what is due."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttackResult:
    """One attack in one setting.  `right` of `population` were re-identified; `claimed` is how many it dared name."""

    attack: str
    case: str  # which form of it, e.g. "family_d alone"
    profile: str
    knowledge: str  # what the attacker knows, in words
    what: str  # what counts as re-identified: "surname", "child", "bigram"
    children: int
    population: int  # how many were at stake: the denominator of the share
    overlap: float | None  # share of the children in the attacker's register; None: no register used
    errors: bool | None
    seed: int
    claimed: int
    right: int
    trivial: float  # share that the best blind guess gets right
    note: str = ""

    @property
    def share(self) -> float:
        """Share re-identified, in [0, 1]."""
        return self.right / self.population if self.population else 0.0

    @property
    def adversary(self) -> str:
        """Who can do this."""
        return next(
            who
            for attack, case, who in _ADVERSARIES
            if fnmatchcase(self.attack, attack) and fnmatchcase(self.case, case)
        )

    @property
    def precision(self) -> float:
        """Share of the claims that are right; 0 if there is none."""
        return self.right / self.claimed if self.claimed else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """The share's 95 % interval after Wilson, sampling of people alone: other seeds vary more."""
        return wilson(self.right, self.population)

    def as_json(self) -> dict[str, Any]:
        """Every field, with adversary, share, precision and interval."""
        return asdict(self) | {
            "adversary": self.adversary,
            "share": self.share,
            "precision": self.precision,
            "interval": list(self.interval),
        }


def wilson(right: int, of: int) -> tuple[float, float]:
    """Wilson's score interval, 95 %.  Source: E. B. Wilson 1927, doi:10.1080/01621459.1927.10502953.

    >>> [round(bound, 4) for bound in wilson(0, 1000)]
    [0.0, 0.0038]
    """
    if of == 0:
        return 0.0, 1.0
    share = right / of
    middle = share + Z95**2 / (2 * of)
    spread = Z95 * math.sqrt(share * (1 - share) / of + Z95**2 / (4 * of**2))
    scale = 1 + Z95**2 / of
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceiling:
    """The largest share allowed where it applies: profile, attack and case are patterns (`*`), the rest bounds.

    `bar` is what it should be where that is missed, and `share` is held meanwhile so that nothing rises unseen.
    """

    share: float
    why: str
    bar: float | None = None
    profile: str = "*"
    attack: str = "*"
    case: str = "*"
    overlap_at_most: float = 1.0
    overlap_at_least: float = 0.0
    errors: bool | None = None
    children_at_least: int = 0  # a bar for a large area says nothing of a small one

    def fits(self, result: AttackResult) -> bool:
        """Whether this ceiling is for that result."""
        return (
            fnmatchcase(result.profile, self.profile)
            and fnmatchcase(result.attack, self.attack)
            and fnmatchcase(result.case, self.case)
            and (result.overlap is None or self.overlap_at_least <= result.overlap <= self.overlap_at_most)
            and result.children >= self.children_at_least
            and (self.errors is None or result.errors is None or self.errors == result.errors)
        )


def load_ceilings(path: Path | None = None) -> tuple[Ceiling, ...]:
    """The ceilings of a file, or those shipped.  Raises BadCeilings."""
    try:
        text = (
            path.read_text("utf-8")
            if path is not None
            else (resources.files("linkage.evaluation.attack") / "ceilings.json").read_text("utf-8")
        )
        body = json.loads(text)
    except (OSError, ValueError):
        raise BadCeilings("the file of ceilings is not there or not JSON") from None
    entries = body.get("ceilings") if isinstance(body, dict) else None
    if not isinstance(entries, list):
        raise BadCeilings('an object {"ceilings": [...]} is due')
    return tuple(_ceiling(at, entry) for at, entry in enumerate(entries))


def _ceiling(at: int, entry: object) -> Ceiling:
    if not isinstance(entry, Mapping):
        raise BadCeilings(f"ceilings[{at}]: an object is due")
    try:
        made = Ceiling(**entry)
    except TypeError:
        raise BadCeilings(
            f"ceilings[{at}]: unknown or missing member; due are {', '.join(Ceiling.__slots__)}"
        ) from None
    for name, share in (("share", made.share), ("bar", 0 if made.bar is None else made.bar)):
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
            raise BadCeilings(f"ceilings[{at}].{name}: a number from 0 to 1 is due")
    return made


def ceiling_of(result: AttackResult, ceilings: Iterable[Ceiling]) -> Ceiling | None:
    """The strictest ceiling that fits, or None."""
    return min((c for c in ceilings if c.fits(result)), key=lambda c: c.share, default=None)


def broken(results: Sequence[AttackResult], ceilings: Sequence[Ceiling]) -> list[tuple[AttackResult, Ceiling]]:
    """Results above their ceiling."""
    held = [(result, ceiling_of(result, ceilings)) for result in results]
    return [(result, limit) for result, limit in held if limit is not None and result.share > limit.share]
