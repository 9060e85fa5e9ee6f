"""Events as OCSF JSON, for a security team's own monitoring: API Activity, and Authentication for signing in.

`type_uid` is `class_uid * 100 + activity_id`.  Persons and cases are the log's tokens; their records are left out.
Source: OCSF 1.3.0 (schema.ocsf.io), classes 6003 and 3002.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from audit.events import Op
from broker.reports.fhir import outcome_of
from broker.reports.reading import persons
from broker.reports.table import OpenedEvent

VERSION: Final = "1.3.0"
API_ACTIVITY: Final = 6003
AUTHENTICATION: Final = 3002
ACTIVITIES: Final[Mapping[str, tuple[int, str]]] = {
    Op.COLLECTION: (1, "Create"), Op.CONSULTATION: (2, "Read"), Op.DISCLOSURE: (2, "Read"),
    Op.ALTERATION: (3, "Update"), Op.COMBINATION: (3, "Update"), Op.ERASURE: (4, "Delete"), Op.SYSTEM: (99, "Other"),
}  # fmt: skip
SIGN_IN: Final = {"auth.login": (1, "Logon"), "auth.logout": (2, "Logoff"), "auth.denied": (1, "Logon")}
INFORMATIONAL, LOW, HIGH = (1, "Informational"), (2, "Low"), (4, "High")
PRODUCT: Final = {"name": "Safeguarding broker", "vendor_name": "Safeguarding broker"}


def activity(one: OpenedEvent, *, origin: str) -> dict[str, Any]:
    """An event as one OCSF event.  `origin`: the log's."""
    event, why = one.event, one.body("why")
    signs_in = event.type in SIGN_IN
    class_uid = AUTHENTICATION if signs_in else API_ACTIVITY
    activity_id, activity_name = SIGN_IN[event.type] if signs_in else ACTIVITIES[event.op]
    severity_id, severity = _severity(one)
    user: dict[str, Any] = {"uid": event.person or event.organisation or "-", "type_id": 1 if event.person else 3}
    if event.organisation:
        user |= {"org": {"uid": event.organisation}}
    if event.role:
        user |= {"groups": [{"uid": event.role}]}
    failed = outcome_of(event.type) != "0"
    found: dict[str, Any] = {
        "category_uid": class_uid // 1000,
        "class_uid": class_uid,
        "class_name": "Authentication" if signs_in else "API Activity",
        "activity_id": activity_id,
        "activity_name": activity_name,
        "type_uid": class_uid * 100 + activity_id,
        "time": round(event.at.timestamp() * 1000),
        "severity_id": severity_id,
        "severity": severity,
        "status_id": 2 if failed else 1,
        "status": "Failure" if failed else "Success",
        "message": event.type,
        "metadata": {
            "version": VERSION, "product": PRODUCT, "uid": event.event_id, "log_name": origin,
            "event_code": event.type, "sequence": one.index,
        },
        "actor": {"user": user},
        "src_endpoint": {"uid": event.organisation or "-"},
        "dst_endpoint": {"hostname": origin.partition("/")[0]},
        "unmapped": {
            name: value
            for name, value in {
                "section_62": event.op, "purpose": event.purpose, "case": event.case,
                "clauses": list(why.get("clauses") or ()), "break_glass": event.break_glass,
                "recipients": [str(each.get("organisation", "")) for each in one.recipients],
            }.items()
            if value
        },
    }  # fmt: skip
    if event.outcome:
        found["status_detail"] = event.outcome
    if signs_in:
        return found | {"user": user, "service": {"name": PRODUCT["name"]}}
    found["api"] = {"operation": event.type, "service": {"name": PRODUCT["name"]}, "request": {"uid": event.event_id}}
    if whom := persons(one.texts("subjects")):
        found["resources"] = [{"uid": each, "type": "person"} for each in whom]
    return found


def _severity(one: OpenedEvent) -> tuple[int, str]:
    if one.event.break_glass or outcome_of(one.event.type) == "8":
        return HIGH
    return LOW if outcome_of(one.event.type) == "4" else INFORMATIONAL
