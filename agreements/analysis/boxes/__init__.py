"""Exact set algebra: every clause is a box, and everything an estate allows is a union of boxes less others.

A point of the space is one request on one item of one record: role, purpose, lawful bases, relation, case, threshold,
link, the item's age and regime, emergency session, tags, record, instant; and a *cell*, a category at a mode.  It is
allowed iff `decide` shows that category at that mode or more, were everything asked for.  A box is a set of values an
axis and a time from, inclusive, to, exclusive; a set is an integer with a bit a value.  What a request claims several
of (conditions, gateways) and what a record has several of (tags) are axes whose values are subsets: boxes stay exact.
"""

from agreements.analysis.boxes.algebra import Axes, Axis, Box, Cut, Given, Pair, merged, without, without_given
from agreements.analysis.boxes.estate import Estate, in_force_periods, live_periods
from agreements.analysis.boxes.questions import Witness, askable, witness
from agreements.analysis.boxes.space import ANOTHER_RECORD, EVER, Space
from agreements.decision.cells import ones

__all__ = [
    "ANOTHER_RECORD",
    "EVER",
    "Axes",
    "Axis",
    "Box",
    "Cut",
    "Estate",
    "Given",
    "Pair",
    "Space",
    "Witness",
    "askable",
    "in_force_periods",
    "live_periods",
    "merged",
    "ones",
    "without",
    "without_given",
    "witness",
]
