"""Every table, so that whoever asks for the metadata has all of it."""

from broker.store import (
    agencies,
    audit_reviews,
    batches,
    considerations,
    documents,
    epochs,
    erasures,
    event_keys,
    items,
    log,
    notices,
    releases,
    reviews,
    runs,
    searches,
    sessions,
    shards,
    witnesses,
)
from broker.store.columns import metadata

__all__ = [
    "agencies", "audit_reviews", "batches", "considerations", "documents", "epochs", "erasures", "event_keys", "items",
    "log", "metadata", "notices", "releases", "reviews", "runs", "searches", "sessions", "shards", "witnesses",
]  # fmt: skip
