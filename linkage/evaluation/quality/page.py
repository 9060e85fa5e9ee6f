"""The report as one page that needs nothing from elsewhere: scores, charts of thresholds and weights, groups."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any, Final

from linkage.evaluation.quality.charts import bars, lines, waterfall
from linkage.evaluation.quality.encoded import Example
from linkage.evaluation.quality.measure import Measured
from linkage.evaluation.quality.scores import STRONG, weight_of
from linkage.matching.bands import HELD, MATCH_BAR, POSSIBLE_BAR
from linkage.matching.comparisons import FIELDS, NOT_COMPARABLE, comparisons
from linkage.matching.model import Model

SIDES: Final = {
    "encoded": "encoded",
    "clear_text": "in clear, same blocking",
    "clear_text_wide": "in clear, wide blocking",
}
KINDS: Final = {
    "shipped": "persons formed at the shipped threshold",
    "best": "single pairs at the best threshold",
    "one_to_one": "best partner only, at the best threshold",
}
_STYLE: Final = """
    body { font: 16px/1.5 system-ui, sans-serif; color: #0b0c0c; max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
    h1 { font-size: 1.8rem } h2 { font-size: 1.4rem; margin-top: 2.5rem; border-top: 2px solid #1d70b8 }
    h1, h2, h3, p, figcaption { overflow-wrap: anywhere }
    h3 { font-size: 1.1rem } table { border-collapse: collapse }
    .wide { margin: 1rem 0; overflow-x: auto } .wide:focus-visible { outline: 3px solid #ffdd00 }
    svg { font: 12px system-ui, sans-serif }
    th, td { text-align: left; padding: .2rem .8rem .2rem 0; border-bottom: 1px solid #b1b4b6 }
    td:first-child { min-width: 9rem }
    td.n, th.n { text-align: right; font-variant-numeric: tabular-nums } tr.finding td { background: #fff2d3 }
    figure { margin: 1rem 0 } figcaption { color: #505a5f }
    @media (max-width: 40rem) { body { margin: 1rem auto } h1 { font-size: 1.5rem } th, td { padding-right: .5rem } }
    @media print { .wide { overflow-x: visible } svg { max-width: 100%; height: auto } }
"""


def rendered(measured: Sequence[Measured]) -> str:
    """The page; the second measurement, if there is one, is the same records without identifiers."""
    first = measured[0]
    sections = [section for n, one in enumerate(measured) for section in _sections(one, bare=n > 0)]
    return (
        '<!doctype html><html lang="en-GB"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>How well these records link</title><style>{_STYLE}</style></head><body>"
        f"<h1>How well these records link: profile {escape(first.profile)}</h1>"
        f"<p>{first.body['records']:,} labelled records with {first.body['true_pairs']:,} true pairs. "
        "Encoded under a fresh key, trained without the labels; no name, date, number or encoding is on this page. "
        "Weights are bits: one more doubles the odds.</p>"
        f"{''.join(sections)}</body></html>\n"
    )


def _sections(one: Measured, *, bare: bool) -> Iterator[str]:
    body = one.body
    yield f"<h2>{'Without identifiers: scores' if bare else 'Scores'}</h2>"
    yield _table(
        ("", "precision", "recall", "F1", "threshold"),
        [
            (f"{words}: {KINDS[kind]}", *(f"{score[part]:.4f}" for part in ("precision", "recall", "f1", "threshold")))
            for side, words in SIDES.items()
            for kind, score in body.get(side, {}).items()
        ]
        + [
            (
                "encoded, with every rule of a broker",
                *(f"{body['linked'][part]:.4f}" for part in ("precision", "recall", "f1", "threshold")),
            )
        ],
    )
    kept, pairs = body["blocking_recall"], body["candidate_pairs"]
    yield f"<p>Blocking keeps {kept:.2%} of the true pairs in {pairs:,} candidates.</p>"
    yield "<h2>Which threshold</h2>"
    yield _figure(
        _threshold_chart(body["sweep"], "pairs"), "Single pairs at or above each threshold; the dashed line is shipped."
    )
    yield _figure(
        _threshold_chart(body["sweep"], "persons"), "Persons formed of them, best links first, one record a flow."
    )
    yield "<h2>What each field weighs</h2>"
    yield _figure(_weights_chart(one), "Match weight of each level of each field, as trained on these records.")
    yield "<h2>Pairs, step by step</h2>"
    for example in one.encoded.examples:
        yield f"<h3>{escape(example.kind[0].upper() + example.kind[1:])}</h3>"
        yield _figure(_waterfall(one.encoded.model, example), _caption(example))
    yield "<h2>What blocking keeps</h2>"
    yield _table(
        ("key", "pairs of rows", "share of true pairs", "found by no other"),
        [
            (f"{SIDES[side]}: {key['name']}", f"{key['pairs']:,}", f"{key['recall']:.2%}", f"{key['only']:.2%}")
            for side, blocking in body["blocking"].items()
            for key in blocking["keys"]
            if key["pairs"]
        ],
    )
    yield "<h2>Who is served worse</h2>"
    yield (
        "<p>Of each group, the share of true pairs found, beside everyone else's, and the share of false ones among "
        "those found. Marked: over five points worse. Groups of under ten records are named only.</p>"
    )
    yield _groups(body["groups"])
    yield "<h2>What it took</h2>"
    yield _table(
        ("stage", "seconds", "CPU seconds", "peak MB"),
        [(s["name"], f"{s['wall_s']:.2f}", f"{s['cpu_s']:.2f}", f"{s['peak_mb']:.0f}") for s in body["stages"]],
    )


def _threshold_chart(sweep: Mapping[str, Sequence[Mapping[str, Any]]], what: str) -> str:
    curves = {
        f"{part}, {SIDES[side]}": [(point["weight"], point[what][key]) for point in points]
        for side, points in sweep.items()
        for part, key in (("precision", "precision"), ("recall", "recall"), ("F1", "f1"))
    }
    least = min((y for points in curves.values() for _, y in points), default=0.0)
    return lines(
        curves,
        x_label="threshold (bits of match weight)",
        marked={"shipped": weight_of(MATCH_BAR)},
        low=max(0.0, least - 0.02),
    )


def _weights_chart(one: Measured) -> str:
    rows = [("prior", "two records at random", one.encoded.model.prior_weight)]
    for comparison in comparisons(one.profile):
        names = _levels(comparison.size)
        weights = one.encoded.model.weights(comparison.field)
        rows += [(_words(comparison.field), name, weight) for name, weight in zip(names, weights, strict=True)]
    return bars(rows, unit="bits")


def _levels(size: int) -> list[str]:
    """Words for the levels of a field, best first."""
    between = [f"alike, {n} of {size - 2}" for n in range(1, size - 1)]
    return ["equal", *between, "not alike"]


def _waterfall(model: Model, example: Example) -> str:
    steps = [("prior", model.prior_weight)]
    for field, level in zip(FIELDS, example.levels, strict=True):
        weights = model.weights(field)
        if level == NOT_COMPARABLE:
            steps.append((f"{_words(field)}\nnot comparable", 0.0))
        else:
            place = len(weights) - 1 - level
            steps.append((f"{_words(field)}\n{_levels(len(weights))[place]}", weights[place]))
    rest = example.weight - sum(step for _, step in steps)
    if abs(rest) > 0.005:
        steps.append(("how rare\nthe names are", rest))
    return waterfall(steps, marks_at={"match": weight_of(MATCH_BAR), "possible": weight_of(POSSIBLE_BAR)}, unit="bits")


def _caption(example: Example) -> str:
    said = [f"{_words(scheme)} agrees" for scheme in example.id_agreed]
    said += [f"{_words(scheme)} differs" for scheme in example.id_differs]
    rule = HELD.get(
        example.rule, {"identifier": f"settled by a number (counts {STRONG:.0f} bits)"}.get(example.rule, "")
    )
    return "; ".join(filter(None, [*said, rule])) or "no number on both sides"


def _groups(rows: Sequence[Mapping[str, Any]]) -> str:
    sides = [side for side in SIDES if rows and side in rows[0]]
    head = ["group", "records"]
    for side in sides:
        head += [f"found, {SIDES[side]}", "others", "false"]
    lines_of = []
    for row in rows:
        cells = [
            f"{_words(row['group'])}: {row['value']}",
            "under 10" if row["records"] is None else f"{row['records']:,}",
        ]
        for side in sides:
            found, false = row[side]["recall"], row[side]["false"]
            cells += [_share(found["rate"]), _share(found["others"]), _share(false["rate"])]
        finding = any(row["encoded"][measure]["finding"] for measure in ("recall", "false"))
        lines_of.append((cells, finding))
    return _table(head, [cells for cells, _ in lines_of], marked=[finding for _, finding in lines_of])


def _words(name: str) -> str:
    return name.replace("_", " ")


def _share(rate: float | None) -> str:
    return "" if rate is None else f"{rate:.0%}"


def _figure(svg: str, caption: str) -> str:
    return f"<figure>{_wide(svg, caption)}<figcaption>{escape(caption)}</figcaption></figure>"


def _wide(content: str, label: str) -> str:
    """What may be wider than a phone: it scrolls by itself, by finger or by key, and the page stays."""
    return f'<div class="wide" role="region" tabindex="0" aria-label="{escape(label)}">{content}</div>'


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], *, marked: Sequence[bool] = ()) -> str:
    def cells(kind: str, row: Sequence[str]) -> str:
        return "".join(f"<{kind}{' class=n' if n else ''}>{escape(cell)}</{kind}>" for n, cell in enumerate(row))

    found = [*marked, *[False] * (len(rows) - len(marked))]
    body = "".join(
        f"<tr{' class=finding' if mark else ''}>{cells('td', row)}</tr>" for row, mark in zip(rows, found, strict=True)
    )
    table = f"<table><thead><tr>{cells('th', head)}</tr></thead><tbody>{body}</tbody></table>"
    return _wide(table, f"Table: {', '.join(filter(None, head[:3]))}")
