"""Data sharing agreements and what they mean: pure, no SQL, no HTTP, no clock.

An agreement is a signed document; `Snapshot.of` gathers what is signed; `decide` says in which mode each category of
one record of one source may be shown, under which clause; `render` turns held items into shown ones; `explain` says
why in words; a decision receipt lets anybody decide again, offline.
"""

from agreements.agreement import AgencyId, Agreement, Duty, Grant, GrantRef, Limit, Party, Period, Restriction
from agreements.decision import decide
from agreements.document import DocumentRefused, Finding, check, from_canonical, json_schema, read
from agreements.explain import AskerReason, HolderView, explain_for_asker, explain_for_holder
from agreements.receipts import AskerCopy, DecisionReceipt, make_receipt, replay
from agreements.render import Contact, Item, Rendering, ShownItem, render
from agreements.request import Basis, BreakGlass, Facts, Held, Link, Request, RequestRefused, Threshold
from agreements.signing import (
    BadSignature,
    PartyKey,
    Signature,
    StatusEvent,
    join,
    sign,
    sign_event,
    verify,
    verify_event,
)
from agreements.snapshot import Snapshot
from agreements.verdict import Decision, Outcome, Shown
from agreements.vocabulary import VOCABULARY, Mode, Vocabulary

__all__ = [
    "VOCABULARY",
    "AgencyId",
    "Agreement",
    "AskerCopy",
    "AskerReason",
    "BadSignature",
    "Basis",
    "BreakGlass",
    "Contact",
    "Decision",
    "DecisionReceipt",
    "DocumentRefused",
    "Duty",
    "Facts",
    "Finding",
    "Grant",
    "GrantRef",
    "Held",
    "HolderView",
    "Item",
    "Limit",
    "Link",
    "Mode",
    "Outcome",
    "Party",
    "PartyKey",
    "Period",
    "Rendering",
    "Request",
    "RequestRefused",
    "Restriction",
    "Shown",
    "ShownItem",
    "Signature",
    "Snapshot",
    "StatusEvent",
    "Threshold",
    "Vocabulary",
    "check",
    "decide",
    "explain_for_asker",
    "explain_for_holder",
    "from_canonical",
    "join",
    "json_schema",
    "make_receipt",
    "read",
    "render",
    "replay",
    "sign",
    "sign_event",
    "verify",
    "verify_event",
]
