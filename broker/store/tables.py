"""Every table, so that whoever asks for the metadata has all of it."""

from broker.store import agencies, batches, documents, items, log, notices, reviews, runs, searches, sessions
from broker.store.columns import metadata

__all__ = [
    "agencies", "batches", "documents", "items", "log", "metadata", "notices", "reviews", "runs", "searches",
    "sessions",
]  # fmt: skip
