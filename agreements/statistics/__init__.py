"""Planning statistics (`aggregate`): declared tables, disclosure control, the rule against differencing.

    tables       what may be asked for, and in which cell a child is counted
    catalogue    reading the tables that are declared, strictly
    suppression  what of the counts may be published: hidden, rounded, audited
    ledger       which release would give a few children away beside an earlier one
    writing      a published table as JSON and CSV, with its symbols and notes

Pure like the rest of `agreements`, but it needs NumPy and SciPy, so nothing outside imports it but the broker.
"""

from agreements.statistics.catalogue import BadCatalogue, shipped
from agreements.statistics.ledger import Counted, TooAlike, too_alike
from agreements.statistics.suppression import Protected, Published, Terms, Withheld, audit, protect
from agreements.statistics.tables import Catalogue, Child, Quarter, Table, Tabulation, tabulate

__all__ = [
    "BadCatalogue",
    "Catalogue",
    "Child",
    "Counted",
    "Protected",
    "Published",
    "Quarter",
    "Table",
    "Tabulation",
    "Terms",
    "TooAlike",
    "Withheld",
    "audit",
    "protect",
    "shipped",
    "tabulate",
    "too_alike",
]
