"""decide: the mode in which each category asked for may be shown, and under which clause.

The same as `reference.decide`, compiled.  `cells`: categories at modes as one integer, so that joining what clauses
give is `|` and a ceiling is `&`.  `compiled`: a snapshot, its clauses a pair, its ceilings.  `standing`: where a
request stands with a source, then with records of some relation, link and tags.  `one`, `many`: a record decided on
with its reasons, and a family's records at once without.
"""

from agreements.decision.many import Modes, view
from agreements.decision.one import decide

__all__ = ["Modes", "decide", "view"]
