"""What information governance asks of the log: search it, open one event, prove it, report on it.  Each look is itself
an event."""

from broker.reports.catalogue import REPORTS, Kind, report
from broker.reports.exporting import Exported, export, export_found, exported_found, found_file
from broker.reports.formats import FORMATS
from broker.reports.looking import OPEN_SECTIONS, READERS, REASONS, LoggedEvent, check_reader
from broker.reports.opening import EventPage, event_page, note_denied, note_sign_in, note_sign_out, opening_of, proof_of
from broker.reports.search import LISTED, FoundEvent, LogFilter, LogSearch, found, opened, organisations, search_log
from broker.reports.table import About, Cell, OpenedEvent, Period, Report, Row

__all__ = [
    "FORMATS", "LISTED", "OPEN_SECTIONS", "READERS", "REASONS", "REPORTS", "About", "Cell", "EventPage", "Exported",
    "FoundEvent", "Kind", "LogFilter", "LogSearch", "LoggedEvent", "OpenedEvent", "Period", "Report", "Row",
    "check_reader", "event_page", "export", "export_found", "exported_found", "found", "found_file", "note_denied",
    "note_sign_in", "note_sign_out", "opened", "opening_of", "organisations", "proof_of", "report", "search_log",
]  # fmt: skip
