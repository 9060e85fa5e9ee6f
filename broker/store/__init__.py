"""Operational tables, a file a group, and the one way to write them: `with store.transaction() as tx`.

SQLModel and SQLAlchemy are known here only.  Whoever needs more than `tx.one`, `tx.all` and `tx.add` writes a query
here, in the file of its tables: a function of the transaction that returns domain values.
"""

from broker.store.transaction import Reading, Store, Transaction

__all__ = ["Reading", "Store", "Transaction"]
