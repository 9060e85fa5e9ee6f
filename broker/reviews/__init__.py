"""Clerical review: uncertain pairs in a queue, masked; what a reviewer decides of one; "this is the wrong person".

A link reviewer sees how two records compare, never what they hold: no name, no item, no token, no record_ref.  The
queue is sorted by age alone.  A decision is in the log before its answer leaves, takes effect in the next night's run,
and needs a second reviewer where a child is shielded or sealed, or where twins or two numbers would be joined.
"""

from broker.reviews.asking import ask, question
from broker.reviews.deciding import confirm, decide, withdraw
from broker.reviews.doubting import wrong_person
from broker.reviews.queue import done, listed, opened, take_in, take_in_published
from broker.reviews.said import (
    DECISIONS,
    PAGE,
    PER_HOUR,
    QUEUE_REASONS,
    STATES,
    Asking,
    Decided,
    Done,
    Question,
    QueuePage,
    Reported,
    Review,
    State,
    Waiting,
    Wanted,
    labels,
)

__all__ = [
    "DECISIONS", "PAGE", "PER_HOUR", "QUEUE_REASONS", "STATES", "Asking", "Decided", "Done", "Question", "QueuePage",
    "Reported", "Review", "State", "Waiting", "Wanted", "ask", "confirm", "decide", "done", "labels", "listed",
    "opened", "question", "take_in", "take_in_published", "withdraw", "wrong_person",
]  # fmt: skip
