"""What information governance asks of the log: search it, open one event, prove it, report on it.  Each look is itself
an event."""

from broker.reports.looking import OPEN_SECTIONS, READERS, REASONS, LoggedEvent
from broker.reports.opening import EventPage, event_page, note_sign_in, opening_of, proof_of
from broker.reports.search import LISTED, FoundEvent, LogFilter, LogSearch, found, organisations, search_log

__all__ = [
    "LISTED", "OPEN_SECTIONS", "READERS", "REASONS", "EventPage", "FoundEvent", "LogFilter", "LogSearch",
    "LoggedEvent", "event_page", "found", "note_sign_in", "opening_of", "organisations", "proof_of", "search_log",
]  # fmt: skip
