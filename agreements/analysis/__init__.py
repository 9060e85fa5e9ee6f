"""What an estate of agreements means: who can see what, what a change changes, what is dead, missing or unused.

Everything follows from one set algebra (`boxes`), so nothing here is a guess.
"""

from agreements.analysis.boxes import Estate, Space, witness
from agreements.analysis.candidate import alone, as_if_always, succession, supposed, with_candidate
from agreements.analysis.difference import Change, Difference, diff

__all__ = [
    "Change",
    "Difference",
    "Estate",
    "Space",
    "alone",
    "as_if_always",
    "diff",
    "succession",
    "supposed",
    "with_candidate",
    "witness",
]
