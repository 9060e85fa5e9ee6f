"""Every table, so that whoever asks for the metadata has all of it."""

from broker.store import (
    agencies,
    batches,
    considerations,
    documents,
    items,
    log,
    notices,
    releases,
    reviews,
    runs,
    searches,
    sessions,
)
from broker.store.columns import metadata

__all__ = [
    "agencies", "batches", "considerations", "documents", "items", "log", "metadata", "notices", "releases", "reviews",
    "runs", "searches", "sessions",
]  # fmt: skip
