"""The command `attack`: run attacks, print what each achieved beside a blind guess, and hold it to its ceiling."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from linkage.evaluation.attack.bench import Bench, Setting
from linkage.evaluation.attack.registry import ATTACKS
from linkage.evaluation.attack.results import AttackResult, BadCeilings, Ceiling, broken, ceiling_of, load_ceilings
from linkage.records import PROFILES, Profile


class ProfileName(StrEnum):
    """A profile without its version."""

    GUARDED = "guarded"
    ACCURATE = "accurate"


class OnOff(StrEnum):
    """Whether a thing is there."""

    ON = "on"
    OFF = "off"


def command(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME...|all]", help="Attacks; none means all.")] = None,
    profile: Annotated[ProfileName, typer.Option("--profile", help="Which encodings to attack.")] = ProfileName.GUARDED,
    children: Annotated[
        int | None, typer.Option("--children", min=100, help="How many children; each attack has its own default.")
    ] = None,
    overlap: Annotated[
        str, typer.Option("--overlap", help="Shares of the children that are in the attacker's register.")
    ] = "0.5,0.8,0.9,1.0",
    errors: Annotated[
        OnOff, typer.Option("--errors", help="Typing errors, moves and gaps in that register.")
    ] = OnOff.ON,
    seed: Annotated[int, typer.Option("--seed", min=0, help="The same seed gives the same figures.")] = 1,
    ceilings: Annotated[
        Path | None, typer.Option("--ceilings", help="A file of ceilings in place of those shipped.")
    ] = None,
    json_out: Annotated[Path | None, typer.Option("--json", help="Write every result there.")] = None,
) -> None:
    """Attack synthetic encodings as published papers do, and say what share of the children was re-identified.

    Each result stands beside what a blind guess gets right.  Nothing here may be run on live data.

    Exit codes: 0 all within their ceilings; 1 one is above; 2 usage.
    """
    chosen = _chosen(names or ["all"])
    try:
        limits = load_ceilings(ceilings)
    except BadCeilings as problem:
        raise typer.BadParameter(str(problem), param_hint="--ceilings") from None
    overlaps = _overlaps(overlap)
    results: list[AttackResult] = []
    benches: dict[int, Bench] = {}
    for name in chosen:
        entry = ATTACKS[name]
        count = min(entry.most, entry.default if children is None else children)
        if count not in benches:
            benches.clear()  # one population at a time: memory
            setting = Setting(
                profile=full_name(profile.value),
                children=count,
                overlaps=overlaps,
                errors=errors is OnOff.ON,
                seed=seed,
            )
            benches[count] = Bench(setting)
        results += shown(entry.run(benches[count]), limits)
    above = broken(results, limits)
    _write(json_out, results, above)
    missed = sum(
        limit is not None and limit.bar is not None and result.share > limit.bar
        for result, limit in ((result, ceiling_of(result, limits)) for result in results)
    )
    typer.echo(f"\n{len(results)} results; above their ceiling: {len(above)}; bars missed, as is known: {missed}")
    for result, limit in above:
        typer.echo(
            f"  {result.attack}, {result.case}: {_per_cent(result.share)} > {_per_cent(limit.share)} ({limit.why})"
        )
    if above:
        raise typer.Exit(1)


def full_name(short: str) -> Profile:
    """The newest profile of that name."""
    return next(profile for profile in reversed(PROFILES) if profile.partition("-")[0] == short)


def shown(results: Iterable[AttackResult], limits: Sequence[Ceiling]) -> list[AttackResult]:
    """The results, each printed as it comes, under a line that says what the attacker knows."""
    kept: list[AttackResult] = []
    said = ""
    for result in results:
        people = f"{result.children:,} children"
        knows = (
            f"\n{result.attack} ({result.profile}, {people}, seed {result.seed}) by: {result.adversary}; "
            f"knows: {result.knowledge}"
        )
        if knows != said:
            typer.echo(knows)
            said = knows
        typer.echo(line(result, ceiling_of(result, limits)))
        kept.append(result)
    return kept


def line(result: AttackResult, limit: Ceiling | None) -> str:
    """One result in words and figures."""
    setting = (
        ""
        if result.overlap is None
        else f"overlap {100 * result.overlap:.0f} %, errors {'on' if result.errors else 'off'}"
    )
    low, high = result.interval
    held = (
        ""
        if limit is None
        else f"  ceiling {_per_cent(limit.share)} {'held' if result.share <= limit.share else 'ABOVE'}"
    )
    if limit is not None and limit.bar is not None and result.share > limit.bar:
        held += f", bar {_per_cent(limit.bar)} MISSED"
    note = f"  ({result.note})" if result.note else ""
    return (
        f"  {result.case:<44} {setting:<27} {result.what}: {_per_cent(result.share):>8} "
        f"[{_per_cent(low)}, {_per_cent(high)}], blind guess {_per_cent(result.trivial)}; "
        f"{result.right:,} right of {result.claimed:,} claimed, {result.population:,} at stake{held}{note}"
    )


def _per_cent(share: float) -> str:
    return f"{100 * share:.2f} %" if share >= 0.00005 or share == 0 else f"{100 * share:.4f} %"


def _chosen(names: list[str]) -> list[str]:
    if "all" in names:
        return list(ATTACKS)
    if unknown := [name for name in names if name not in ATTACKS]:
        raise typer.BadParameter(f"no attack {unknown[0]!r}; there are {', '.join(ATTACKS)}", param_hint="NAME")
    return list(dict.fromkeys(names))


def _overlaps(text: str) -> tuple[float, ...]:
    try:
        shares = tuple(float(part) for part in text.split(","))
    except ValueError:
        shares = ()
    if not shares or not all(0 < share <= 1 for share in shares):
        raise typer.BadParameter("shares above 0 and up to 1, with commas between", param_hint="--overlap")
    return shares


def _write(path: Path | None, results: Sequence[AttackResult], above: Sequence[tuple[AttackResult, Ceiling]]) -> None:
    if path is None:
        return
    body = {
        "results": [result.as_json() for result in results],
        "above": [
            {
                "attack": result.attack,
                "case": result.case,
                "share": result.share,
                "ceiling": limit.share,
                "why": limit.why,
            }
            for result, limit in above
        ],
    }
    path.write_text(json.dumps(body, indent=1, sort_keys=True) + "\n", encoding="utf-8")
