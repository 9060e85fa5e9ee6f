"""Disclosure control of 1,000 random tables: none gives a hidden figure away, beside the same with small ones hidden only.

Skewed two- and three-dimensional tables with all their totals.  A figure is given away if somebody who has the published
table alone can tell it to the step of the rounding; small ones must also be able to be 0 or 1, and the threshold.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from statistics import mean, median
from typing import Any, Final

from agreements.statistics import Protected, Published, Terms, audit, protect
from agreements.statistics.suppression import exposed, primary_only
from tests.agreements.test_statistics import a_table

TOPIC: Final = "agreements"
TABLES: Final = 1_000
CONTROLS: Final = 200
ANYHOW: Final = Terms(most_hidden=100)
"""However much is hidden: so that every table that can be protected is published, and attacked."""

Row = dict[str, Any]


def rows() -> Iterator[Row]:
    """The rows of `make bench ONLY=agreements`."""
    took, others = [], []
    unprotected = useless = given_away = 0
    for seed in range(TABLES):
        counts = a_table(seed)
        began = time.process_time()
        made = protect(counts, ANYHOW)
        took.append(time.process_time() - began)
        if not isinstance(made, Protected):
            unprotected += 1
            continue
        others.append(made.others)
        useless += _share_hidden(made.published) > Terms().most_hidden
        found = audit(made.published)
        kept = all(found[figure].spans(ANYHOW) for figure in made.small)
        given_away += not kept or any(exposed(one, ANYHOW) for one in found.values())
    control = sum(
        any(exposed(one, ANYHOW) for one in audit(primary_only(a_table(seed), ANYHOW)).values())
        for seed in range(CONTROLS)
    )
    published = TABLES - unprotected
    yield _row(
        f"a figure can be worked out, of {published} tables audited", round(100 * given_away / published, 2), "% of tables",
        peer=round(100 * control / CONTROLS, 1), name=f"small figures hidden only, {CONTROLS} of the same", goal=0,
        held=given_away == 0,
    )  # fmt: skip
    yield _row("protecting a table, processor time", round(1000 * median(took), 1), "ms, median")
    yield _row("figures hidden for the sake of others, a table", round(mean(others), 2), "mean")
    yield _row("tables withheld: nothing would protect them", unprotected, f"of {TABLES}")
    yield _row("tables withheld: over 60% of the cells would be hidden", useless, f"of {TABLES}")


def _share_hidden(published: Published) -> float:
    inside = published.figures[tuple(slice(0, size) for size in published.shape)]
    return float(100 * (inside < 0).mean())


def _row(
    claim: str,
    ours: float,
    unit: str,
    *,
    peer: float | None = None,
    name: str | None = None,
    goal: float | None = None,
    held: bool | None = None,
) -> Row:
    ratio = None if peer is None else round(ours / peer, 3) if peer else 0
    return {
        "claim": claim, "ours": ours, "peer": peer, "peer_name": name, "ratio": ratio, "goal": goal, "held": held,
        "unit": unit,
    }  # fmt: skip
