"""Who was shown what of this agency's records, with the agency's own numbers put back: on this machine, and only here.

The broker knows records by names that only the crosswalk turns back.  What is printed or written here is personal data.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, Any, Final, Protocol

COLUMNS: Final = (
    "at", "ended", "recalled_at", "organisation", "role", "person", "purpose", "case", "kind", "flow", "local_id",
    "record_ref", "category", "mode", "clauses", "of", "carried_by", "event_id", "notice",
)  # fmt: skip
READ_AT_ONCE: Final = 500  # notices that one receipt names
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")

LocalId = Callable[[str], "tuple[str, str] | None"]


class Asked(Protocol):
    """The broker's ledger, as `client.Broker` asks for it."""

    def ledger(self, *, which: str, since: str | None = None, cursor: str | None = None) -> dict[str, Any]: ...

    def have_read(self, *, notices: Sequence[str], recalls: Sequence[str]) -> dict[str, Any]: ...


def accesses(broker: Asked, *, which: str, since: str | None = None) -> Iterator[dict[str, Any]]:
    """Every access, page by page, oldest first.  Raises Refused or Unreachable."""
    cursor: str | None = None
    while True:
        page = broker.ledger(which=which, since=since, cursor=cursor)
        yield from page["accesses"]
        cursor = page["next"]
        if cursor is None:
            return


def resolved(access: Mapping[str, Any], local_id: LocalId) -> dict[str, Any]:
    """An access with the agency's own number at each of its records; None where the crosswalk knows it no more."""
    records = []
    for record in access["records"]:
        ref = record["record_ref"]
        known = local_id(ref) if ref else None
        records.append({**record, "local_id": known[1] if known else None})
    return {**access, "records": records}


def say_read(broker: Asked, notices: Sequence[str], recalls: Sequence[str] = ()) -> int:
    """Send the read receipts; how many notices and recalls were new.  Raises Refused or Unreachable."""
    parts = [
        (notices[start : start + READ_AT_ONCE], recalls[start : start + READ_AT_ONCE])
        for start in range(0, max(len(notices), len(recalls)), READ_AT_ONCE)
    ]
    done = 0
    for some, heard in parts:
        answer = broker.have_read(notices=some, recalls=heard)
        done += int(answer["notices"]) + int(answer["recalls"])
    return done


def rows(access: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """A row for each record and category that was shown; one without, where only that there is a record was."""
    shared = {name: _text(access.get(name)) for name in COLUMNS}
    for record in access["records"] or [{}]:
        known = {name: _text(record.get(name)) for name in ("flow", "local_id", "record_ref", "of", "carried_by")}
        known["clauses"] = "; ".join(record.get("clauses") or ())
        for category in record.get("categories") or [{"category": "", "mode": "existence"}]:
            yield {**shared, **known, "category": category["category"], "mode": category["mode"]}


def write_csv(found: Sequence[Mapping[str, Any]], out: IO[str]) -> None:
    """All of it as CSV; a cell that a spreadsheet would take for a formula is marked as text."""
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for access in found:
        for row in rows(access):
            writer.writerow({name: f"'{cell}" if cell.startswith(_FORMULA) else cell for name, cell in row.items()})


def line(access: Mapping[str, Any]) -> str:
    """One access in words."""
    shown = []
    for record in access["records"]:
        categories = ", ".join(f"{each['label']} ({each['mode']})" for each in record["categories"])
        whose = record.get("local_id") or record["record_ref"] or f"carried by {record['carried_by']}"
        shown.append(f"    {record['flow'] or '-'} {whose}: {categories or 'that there is a record'}")
    who = f"{access['name']}, {access['role_label']} ({access['person']})"
    head = f"{access['at'][:19]}Z  {who}: {access['purpose_label']}  event {access['event_id']}"
    notes = [] if access["ended"] == "completed" else [_ENDED.get(access["ended"], access["ended"])]
    notes += [f"recalled {access['recalled_at']}"] if access["recalled_at"] else []
    return "\n".join([f"{head} [{', '.join(notes)}]" if notes else head, *shown])


def recall_line(one: Mapping[str, Any]) -> str:
    """One recalled answer in words."""
    how = (
        "may mix people up: so it was reported, and a reviewer looks" if one["why"] == "reported" else "mixed people up"
    )
    return f"RECALLED: what {one['person']} was shown at {one['shown_at']} {how}: {one['event_id']}"


_ENDED: Final = {
    "not_sent": "was not sent",
    "broken_off": "broke off: a part may have arrived",
    "unknown": "possibly seen",
}


def _text(value: object) -> str:
    return "" if value is None or isinstance(value, list | dict) else str(value)
