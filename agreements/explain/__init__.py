"""Why, in plain English: one tree, two projections.

What the asker reads is computed from the request and the live agreements alone, so it is equal with and without a
record: no fact of any record comes in.  What holder, information governance and courts read is the whole tree.
"""

from agreements.explain.asker import AskerReason, explain_for_asker
from agreements.explain.holder import CategoryView, HolderView, explain_for_holder
from agreements.explain.near import NEAR, NearMiss

__all__ = [
    "NEAR",
    "AskerReason",
    "CategoryView",
    "HolderView",
    "NearMiss",
    "explain_for_asker",
    "explain_for_holder",
]
