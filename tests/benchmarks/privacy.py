"""What published attacks re-identify in each profile, beside a blind guess; the README's table, in build/privacy.md.

A row is the worst case of its kind, named, with who could do it.  Of several seeds the mean is shown and all are listed;
the bar that the issue of this part sets for `guarded` holds if every seed does.  The graph attack
compares all with all, so of 5,000 children there is one case, in one form, under one seed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from linkage.evaluation.attack.bench import Bench, Setting
from linkage.evaluation.attack.command import full_name
from linkage.evaluation.attack.registry import ATTACKS
from linkage.evaluation.attack.results import AttackResult
from tests.benchmarks.sizes import sized

TOPIC: Final = "privacy"
PROFILES: Final = ("guarded", "accurate")
AREA: Final = 200_000
MOST: Final = sized(AREA, 400)
MINUTES: Final = 60
SEEDS: Final = sized((1, 2, 3, 4, 5), (1, 2))

Row = dict[str, Any]
Kept = Callable[[AttackResult], bool]


@dataclass(frozen=True, slots=True)
class Kind:
    """One line of the table: which attacks, on whom, which of their results, and the bar for `guarded`, if any."""

    words: str
    attacks: tuple[str, ...]
    children: int
    overlap: float
    errors: bool
    kept: Kept = lambda _: True
    bar: float | None = None
    seeds: tuple[int, ...] = (1,)  # of `guarded`; of `accurate` the first alone
    profiles: tuple[str, ...] = PROFILES

    def takes(self, result: AttackResult) -> bool:
        """Whether that result counts here; the control of an attack goes by another name."""
        return result.attack in self.attacks and self.kept(result)


def _begins(*starts: str) -> Kept:
    return lambda result: result.case.startswith(starts)


def _no_register(result: AttackResult) -> bool:
    return result.overlap is None


def _likeness_alone(result: AttackResult) -> bool:
    return "year" not in result.case


def _register(result: AttackResult) -> bool:
    return result.overlap is not None


KINDS: Final = (
    Kind("Frequency: names alone, chained, by siblings and moves; public table", ("frequency", "chained", "siblings"), AREA, 0.8, True, _no_register, 0.002),
    Kind("Frequency: name counts of a register, 80 %, errors", ("frequency",), AREA, 0.8, True, _register, 0.002),
    Kind("Composite tokens: public joint frequency", ("composite",), AREA, 0.8, True, _no_register, 0.001),
    Kind("Composite tokens: counts of a register, 80 %, errors", ("composite",), AREA, 0.8, True, _register, 0.001),
    Kind("Match keys: counts and block sizes, 80 %, errors", ("matchkey",), AREA, 0.8, True),
    Kind("Match keys: the same, worst case (100 %, none)", ("matchkey",), AREA, 1.0, False),
    Kind("Dictionary, one key missing", ("dictionary",), 2_000, 1.0, False, _begins("without", "of another"), 0.0),
    Kind("Dictionary, all keys (control)", ("dictionary",), 2_000, 1.0, False, _begins("control: all")),
    Kind("Graph matching, 80 %, errors", ("graph", "graph_published"), 1_000, 0.8, True, _likeness_alone, 0.01, SEEDS),
    Kind("Graph matching, whole families of 5,000 children, 80 %, errors", ("graph_families",), 5_000, 0.8, True, bar=0.01, profiles=("guarded",)),
    Kind("Graph matching, worst case (100 %, none)", ("graph", "graph_published"), 1_000, 1.0, False, _likeness_alone),
    Kind("Graph matching with birth year and sex, 80 %, errors", ("graph",), 1_000, 0.8, True, _begins("households + "), 0.01, SEEDS),
    Kind("Graph matching with birth year and sex, worst case", ("graph",), 1_000, 1.0, False, _begins("households + ")),
    Kind("Equality of tokens, exact, 80 %, errors", ("equality",), 20_000, 0.8, True, _begins("exact")),
    Kind("Equality of tokens, noise-tolerant, 80 %, errors", ("equality",), 20_000, 0.8, True, _begins("noise-tolerant")),
    Kind("The same, birth year and sex withheld, 0.1 % known", ("equality",), 20_000, 0.8, True, _begins("withheld year and sex, 0.1 %")),
    Kind("Equality of tokens, worst case (100 %, none)", ("equality",), 20_000, 1.0, False, _begins("exact", "noise-tolerant")),
    Kind("Households by birth years and sexes, all disks and no vault key", ("households",), AREA, 0.8, True, _begins("disk"), 0.0, profiles=("guarded",)),
    Kind("Households by birth years and sexes, vault opened, 80 %, errors", ("households",), AREA, 0.8, True, _begins("vault"), 0.01, SEEDS, ("guarded",)),
    Kind("Households, vault opened, worst case (100 %, none)", ("households",), AREA, 1.0, False, _begins("vault"), profiles=("guarded",)),
    Kind("The same, were all adults' years told, 80 %, errors", ("households",), AREA, 0.8, True, _begins("were all"), profiles=("guarded",)),
    Kind("The same, were no year and sex told, 80 %, errors", ("households",), AREA, 0.8, True, _begins("were no year"), profiles=("guarded",)),
    Kind("Length: a name from the weights of its filters", ("length",), 20_000, 0.8, True, lambda r: r.case.endswith("name")),
    Kind("Known pairs: given names of the rest, 80 % known", ("known_pairs",), 2_000, 0.8, True, _begins("given name, 80")),
    Kind("Known pairs: bigrams of the rest, 80 % known", ("known_pairs",), 2_000, 0.8, True, lambda r: "bigrams, 80" in r.case),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Found:
    """The worst result of one kind under each seed, and of how many forms."""

    worst: Sequence[AttackResult]
    forms: int

    @property
    def top(self) -> AttackResult:
        """The worst of all."""
        return max(self.worst, key=lambda result: result.share)

    @property
    def mean(self) -> float:
        """The mean share over seeds."""
        return sum(result.share for result in self.worst) / len(self.worst)


def rows() -> Iterator[Row]:
    """The rows of `make bench ONLY=privacy`."""
    found: dict[str, dict[str, Found]] = {kind.words: {} for kind in KINDS}
    for profile in PROFILES:
        run = _Runs(profile)
        for kind in (kind for kind in KINDS if profile in kind.profiles):
            made = _found(run, kind, kind.seeds if profile == "guarded" else kind.seeds[:1])
            if made is None:
                continue
            found[kind.words][profile] = made
            yield _row(profile, kind, made)
    table = Path("build") / "privacy.md"
    table.parent.mkdir(exist_ok=True)
    table.write_text(markdown(found), encoding="utf-8")


def _found(run: _Runs, kind: Kind, seeds: Sequence[int]) -> Found | None:
    worst, forms = [], 0
    for seed in seeds:
        results = [result for name in kind.attacks for result in run.of(name, kind, seed) if kind.takes(result)]
        if not results:
            return None
        worst.append(max(results, key=lambda result: result.share))
        forms = len(results)
    return Found(worst, forms)


class _Runs:
    """Results by setting: kinds that share one share its run; one population is kept at a time."""

    def __init__(self, profile: str) -> None:
        self._profile = profile
        self._made: dict[tuple[object, ...], list[AttackResult]] = {}
        self._bench: Bench | None = None

    def of(self, name: str, kind: Kind, seed: int) -> list[AttackResult]:
        entry = ATTACKS[name]
        setting = Setting(
            profile=full_name(self._profile), children=min(kind.children, entry.most, MOST), overlaps=(kind.overlap,),
            errors=kind.errors, seed=seed,
        )  # fmt: skip
        key = (name, setting)
        if key not in self._made:
            if self._bench is None or self._bench.setting != setting:
                self._bench = Bench(setting)
            self._made[key] = list(entry.run(self._bench))
        return self._made[key]


def _row(profile: str, kind: Kind, found: Found) -> Row:
    bar = kind.bar if profile == "guarded" else None
    top = found.top
    seeds = ", ".join(f"{100 * result.share:.3g}" for result in found.worst)
    of_seeds = "" if len(found.worst) == 1 else f"; mean of seeds {seeds}"
    return {
        "claim": f"{profile}: {kind.words} ({top.children:,} children); worst of {found.forms}: {top.case} -> {top.what}"
                 f"{of_seeds}; by {top.adversary}",
        "ours": round(100 * found.mean, 4), "peer": round(100 * top.trivial, 4), "peer_name": "blind guess",
        "ratio": round(found.mean / top.trivial, 2) if top.trivial else None,
        "goal": None if bar is None else f"<= {100 * bar:g} %", "held": None if bar is None else top.share <= bar,
        "unit": "%", "interval": [round(100 * bound, 4) for bound in top.interval], "knowledge": top.knowledge,
    }  # fmt: skip


def markdown(found: dict[str, dict[str, Found]]) -> str:
    """The table of the README: per cent re-identified (the worst of several seeds), the blind guess in brackets."""
    lines = [
        "| attack (worst of its forms) | who could | children | `guarded` | `accurate` | bar for `guarded` |",
        "|---|---|---|---|---|---|",
    ]
    for kind in KINDS:
        made = found[kind.words]
        if not made:
            continue
        who = next(iter(made.values())).top.adversary
        cells = [_cell(made.get(profile)) for profile in PROFILES]
        bar = "-" if kind.bar is None else f"{100 * kind.bar:g}"
        lines.append(f"| {kind.words} | {who} | {kind.children:,} | {cells[0]} | {cells[1]} | {bar} |")
    return "\n".join(lines) + "\n"


def _cell(found: Found | None) -> str:
    if found is None:
        return "-"
    worst = "" if len(found.worst) == 1 else f", worst {_short(found.top.share)}"
    return f"{_short(found.mean)}{worst} ({_short(found.top.trivial)})"


def _short(share: float) -> str:
    per_cent = 100 * share
    return "0" if per_cent == 0 else f"{per_cent:.1f}" if per_cent >= 1 else f"{per_cent:.2g}"
