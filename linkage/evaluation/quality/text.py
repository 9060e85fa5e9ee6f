"""The report on a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

SIDES: Final = ("encoded", "clear_text", "clear_text_wide")


def lines(body: Mapping[str, Any], heading: str, *, groups: bool) -> Iterator[str]:
    """One measurement as lines of text."""
    yield f"{body['records']:,} records, {body['candidate_pairs']:,} candidate pairs, {heading}"
    yield f"blocking keeps {body['blocking_recall']:.4f} of the {body['true_pairs']:,} true pairs"
    yield f"{'':<28}{'precision':>10}{'recall':>10}{'F1':>10}{'threshold':>11}"
    for name in SIDES:
        for kind, score in body.get(name, {}).items():
            yield _line(f"{name} {kind}", score)
    yield _line("linked, with every rule", body["linked"])
    yield ""
    yield from _sweep(body["sweep"])
    yield ""
    yield f"{'blocking key':<34}{'pairs':>12}{'recall':>10}{'no other':>10}"
    for name, blocking in body["blocking"].items():
        for key in blocking["keys"]:
            if key["pairs"]:
                yield f"{name + ' ' + key['name']:<34}{key['pairs']:>12,}{key['recall']:>10.4f}{key['only']:>10.4f}"
        yield f"{name + ' in all':<34}{blocking['pairs']:>12,}{blocking['recall']:>10.4f}"
    yield ""
    yield from _groups(body["groups"], every=groups)
    yield f"{'stage':<28}{'wall s':>10}{'CPU s':>10}{'peak MB':>10}"
    for stage in body["stages"]:
        yield f"{stage['name']:<28}{stage['wall_s']:>10.2f}{stage['cpu_s']:>10.2f}{stage['peak_mb']:>10.0f}"


def _line(name: str, score: Mapping[str, float]) -> str:
    figures = "".join(f"{score[part]:>10.4f}" for part in ("precision", "recall", "f1"))
    return f"{name:<28}{figures}{score['threshold']:>11.4f}"


def _sweep(sweep: Mapping[str, list[dict[str, Any]]]) -> Iterator[str]:
    """Every third threshold, single pairs."""
    yield f"{'bits':>5}{'probability':>13}" + "".join(f"{name + '  P / R / F1':>32}" for name in sweep)
    for points in list(zip(*sweep.values(), strict=True))[::3]:
        first = points[0]
        figures = "".join(
            f"{point['pairs']['precision']:>16.4f}{point['pairs']['recall']:>8.4f}{point['pairs']['f1']:>8.4f}"
            for point in points
        )
        yield f"{first['weight']:>5.0f}{first['pairs']['threshold']:>13.6f}{figures}"


def _groups(rows: list[dict[str, Any]], *, every: bool) -> Iterator[str]:
    """All groups, or only those served over five points worse than everyone else."""
    shown = [row for row in rows if every or any(_findings(row))]
    yield f"groups served worse by over five points: {sum(any(_findings(row)) for row in rows)} of {len(rows)}"
    if not shown:
        return
    yield f"{'group':<40}{'records':>9}" + "".join(
        f"{side + ' recall':>20}{'others':>8}{'false':>8}" for side in ("encoded", "clear_text") if side in shown[0]
    )
    for row in shown:
        name = f"{row['group']}: {row['value']}"
        figures = "".join(
            f"{_share(row[side]['recall']['rate']):>20}{_share(row[side]['recall']['others']):>8}"
            f"{_share(row[side]['false']['rate']):>8}"
            for side in ("encoded", "clear_text")
            if side in row
        )
        mark = "  finding" if any(_findings(row)) else ""
        yield f"{name:<40}{'under 10' if row['records'] is None else row['records']:>9}{figures}{mark}"


def _findings(row: Mapping[str, Any]) -> list[bool]:
    return [row["encoded"][measure]["finding"] for measure in ("recall", "false")]


def _share(rate: float | None) -> str:
    return "-" if rate is None else f"{rate:.0%}"
