"""What published attacks re-identify in each profile, beside a blind guess; the README's table, in build/privacy.md.

A row is the worst case of its kind, named.  Where the issue of this part sets a bar for `guarded`, it is the goal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
SEED: Final = 1

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
    Kind("Graph matching, 80 %, errors", ("graph", "graph_published"), 1_000, 0.8, True, _likeness_alone, 0.01),
    Kind("Graph matching, worst case (100 %, none)", ("graph", "graph_published"), 1_000, 1.0, False, _likeness_alone),
    Kind("Graph matching with birth year and sex, 80 %, errors", ("graph",), 1_000, 0.8, True, _begins("households + "), 0.01),
    Kind("Graph matching with birth year and sex, worst case", ("graph",), 1_000, 1.0, False, _begins("households + ")),
    Kind("Equality of tokens, exact, 80 %, errors", ("equality",), 20_000, 0.8, True, _begins("exact")),
    Kind("Equality of tokens, noise-tolerant, 80 %, errors", ("equality",), 20_000, 0.8, True, _begins("noise-tolerant")),
    Kind("The same, birth year and sex withheld, 0.1 % known", ("equality",), 20_000, 0.8, True, _begins("withheld year and sex, 0.1 %")),
    Kind("Equality of tokens, worst case (100 %, none)", ("equality",), 20_000, 1.0, False, _begins("exact", "noise-tolerant")),
    Kind("Length: a name from the weights of its filters", ("length",), 20_000, 0.8, True, lambda r: r.case.endswith("name")),
    Kind("Known pairs: given names of the rest, 80 % known", ("known_pairs",), 2_000, 0.8, True, _begins("given name, 80")),
    Kind("Known pairs: bigrams of the rest, 80 % known", ("known_pairs",), 2_000, 0.8, True, lambda r: "bigrams, 80" in r.case),
)  # fmt: skip


def rows() -> Iterator[Row]:
    """The rows of `make bench ONLY=privacy`."""
    worst: dict[str, dict[str, AttackResult]] = {kind.words: {} for kind in KINDS}
    for profile in PROFILES:
        run = _Runs(profile)
        for kind in KINDS:
            results = [result for name in kind.attacks for result in run.of(name, kind) if kind.takes(result)]
            if not results:
                continue
            top = max(results, key=lambda result: result.share)
            worst[kind.words][profile] = top
            yield _row(profile, kind, top, len(results))
    table = Path("build") / "privacy.md"
    table.parent.mkdir(exist_ok=True)
    table.write_text(markdown(worst), encoding="utf-8")


class _Runs:
    """Results by setting: kinds that share one share its run; one population is kept at a time."""

    def __init__(self, profile: str) -> None:
        self._profile = profile
        self._made: dict[tuple[object, ...], list[AttackResult]] = {}
        self._bench: Bench | None = None

    def of(self, name: str, kind: Kind) -> list[AttackResult]:
        entry = ATTACKS[name]
        setting = Setting(
            profile=full_name(self._profile), children=min(kind.children, entry.most, MOST), overlaps=(kind.overlap,),
            errors=kind.errors, seed=SEED,
        )  # fmt: skip
        key = (name, setting.children, setting.overlaps, setting.errors)
        if key not in self._made:
            if self._bench is None or self._bench.setting != setting:
                self._bench = Bench(setting)
            self._made[key] = list(entry.run(self._bench))
        return self._made[key]


def _row(profile: str, kind: Kind, top: AttackResult, forms: int) -> Row:
    bar = kind.bar if profile == "guarded" else None
    return {
        "claim": f"{profile}: {kind.words} ({top.children:,} children); worst of {forms}: {top.case} -> {top.what}",
        "ours": round(100 * top.share, 4), "peer": round(100 * top.trivial, 4), "peer_name": "blind guess",
        "ratio": round(top.share / top.trivial, 2) if top.trivial else None,
        "goal": None if bar is None else f"<= {100 * bar:g} %", "held": None if bar is None else top.share <= bar,
        "unit": "%", "interval": [round(100 * bound, 4) for bound in top.interval], "knowledge": top.knowledge,
    }  # fmt: skip


def markdown(worst: dict[str, dict[str, AttackResult]]) -> str:
    """The table of the README: per cent re-identified, the blind guess in brackets."""
    lines = [
        "| attack (worst of its forms) | children | `guarded` | `accurate` | bar for `guarded` |",
        "|---|---|---|---|---|",
    ]
    for kind in KINDS:
        found = worst[kind.words]
        if not found:
            continue
        cells = [_cell(found.get(profile)) for profile in PROFILES]
        bar = "-" if kind.bar is None else f"{100 * kind.bar:g}"
        lines.append(f"| {kind.words} | {kind.children:,} | {cells[0]} | {cells[1]} | {bar} |")
    return "\n".join(lines) + "\n"


def _cell(result: AttackResult | None) -> str:
    if result is None:
        return "-"
    return f"{_short(result.share)} ({_short(result.trivial)})"


def _short(share: float) -> str:
    per_cent = 100 * share
    return "0" if per_cent == 0 else f"{per_cent:.1f}" if per_cent >= 1 else f"{per_cent:.2g}"
