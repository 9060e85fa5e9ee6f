"""What each type of event means: who writes it, what its sections hold; rendered as `EVENTS.md`.

`audit.events` closes the set and gives each type its operation in the sense of s.62; here stands the rest.  A type that
no code writes yet is *reserved*, with the reason.  A test holds both to the code.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from audit.events import EVENT_TYPES, OPS, Op

_BATCH: Final = "batch, flow, sequence, kind, manifest_sha256, rows, agreements, epoch: if it is prepared, outcome"
_RELEASE: Final = "release, table, period, digests of catalogue and figures, outcome"
_ASKING: Final = "asking a holder: the holder's inbox"
_RIGHTS: Final = "restriction and rectification of a subject"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A type of event.  `by`: the broker's modules that write it; empty where it is `reserved`, which says why.

    `what`, `why`, `detail`: what these sections hold beyond what every event has, as names of fields; `beside`: what is
    sealed beside the event.
    """

    words: str
    by: tuple[str, ...] = ()
    what: str = ""
    why: str = ""
    detail: str = ""
    beside: str = ""
    reserved: str = ""


def _written(by: str, words: str, what: str = "", *, why: str = "", detail: str = "", beside: str = "") -> Kind:
    return Kind(words=words, by=tuple(by.split()), what=what, why=why, detail=detail, beside=beside)


def _reserved(words: str, reason: str) -> Kind:
    return Kind(words=words, reserved=reason)


KINDS: Final[Mapping[str, Kind]] = MappingProxyType({
    "submission.received": _written("submissions", "a batch has arrived whole and is sealed", _BATCH),
    "submission.accepted": _written("validation", "a batch holds and is taken in", _BATCH),
    "submission.quarantined": _written("validation", "a batch waits for a person to look", _BATCH),
    "submission.rejected": _written("validation", "a batch does not hold: nothing of it is used", _BATCH),
    "submission.withdrawn": _written("reception", "a batch was closed before it was committed", _BATCH),
    "linkage.run_started": _written("runs", "a night's linkage began", "run, night, batches, outcome", why="reason"),
    "linkage.run_completed": _reserved("a linkage run ended well", "linkage.published says so"),
    "linkage.run_failed": _written("runs", "a run came to nothing", "run, night, outcome: a code"),
    "linkage.published": _written("runs", "a run is in service", "run, night, model_sha256, counts, outcome"),
    "linkage.model_compared": _written(
        "runs", "a retrained model was linked by beside the one in service",
        "run, night, model_sha256, against_sha256, linked_per_mille, persons_merged, persons_split, pairs_moved, "
        "outcome",
    ),
    "linkage.model_accepted": _written("runs", "an operator took a model in", "run, night, model_sha256, by, outcome"),
    "epoch.opened": _written("epochs", "an epoch of the linkage key is being prepared", "epoch, fingerprint, outcome"),
    "epoch.linked": _written(
        "rotation", "the shadow set of an epoch was linked and set beside what is in service",
        "epoch, run, records, persons, pairs_lost, pairs_gained, reasons: codes, outcome",
    ),
    "epoch.proposed": _written("rotation", "somebody proposed to put an epoch in service", "epoch, outcome"),
    "epoch.refused": _written("rotation", "an epoch may not be put in service", "epoch, reasons: codes, outcome"),
    "epoch.flipped": _written("rotation", "another epoch of the linkage key is in service",
                              "epoch, before, run, proposed_by, outcome"),
    "epoch.stopped": _written("rotation", "an epoch is stopped: the one held is in service again, or none is prepared",
                              "epoch, back_to, run, outcome"),
    "epoch.dropped": _written("rotation", "what was kept of an epoch is destroyed",
                              "epoch, segments, batches, outcome"),
    "link.proposed": _reserved("a link waits for a person", "a run's published counts and review.listed say so"),
    "link.confirmed": _written("overrides", "a second person confirmed a decision on a link",
                               "override, kind, scope, review, outcome", why="reason, evidence"),
    "link.rejected": _written("overrides", "a second person refused a decision on a link",
                              "override, kind, scope, review, outcome", why="reason, evidence"),
    "link.split": _written(
        "splits", "a run split persons that had been one",
        "run, persons, seen_persons, shown, organisations, outcome", beside="saw: who was shown whom",
    ),
    "link.merged": _reserved("a run made one person of several", "kept as the run's lineage; nobody was misled by it"),
    "link.wrong_person_reported": _written(
        "reviews.doubting", "somebody says that two people are mixed up", "report, view, doubted, outcome",
        why="reason", detail="reviews", beside="saw: who was shown the person",
    ),
    "override.must_link": _written("overrides", "two records are one person, by a person's decision",
                                   "override, kind, scope, review, outcome", why="reason, evidence"),
    "override.must_not_link": _written("overrides", "two records are two persons, by a person's decision",
                                       "override, kind, scope, review, outcome", why="reason, evidence"),
    "override.sever": _written("overrides", "an agency has cut an identity off", "overrides: how many, outcome",
                               why="reason", detail="overrides"),
    "override.withdrawn": _written("overrides", "an override holds no more",
                                   "override, kind, scope, review, outcome", why="reason, evidence"),
    "review.passed_on": _written("reviews.deciding", "a reviewer left a link to another", "review, outcome",
                                 why="reason, evidence"),
    "threshold.set": _written("thresholds", "a decision-maker recorded a level of need", "search, level, outcome",
                              why="purpose, case, grounds"),
    "threshold.refused": _written("thresholds", "a level was not recorded", "search, level, outcome: a code",
                                  why="purpose, case, grounds"),
    "restriction.added": _written("register", "a restriction is signed and in force", "restriction, digest"),
    "restriction.changed": _reserved("a restriction was changed", "a changed one is lifted and another added"),
    "restriction.lifted": _written("register", "its owner took a restriction back", "restriction, party, since"),
    "restriction.expired": _written("expiry", "a restriction has ended", "restriction, code, due, stops"),
    "legal_hold.set": _written("erasure", "nothing of a subject may be erased; on whom is not said",
                               "hold, reason, ids: how many, outcome"),
    "legal_hold.lifted": _written("erasure", "a hold was lifted", "hold, outcome"),
    "subject.restricted": _reserved("processing of a subject is restricted (Article 18)", _RIGHTS),
    "subject.rectified": _reserved("data of a subject were put right (Article 16)", _RIGHTS),
    "subject.lifted": _written("lifting", "who was erased may be linked again; never whom",
                               "lift, reason, proposed_by, ids: how many, outcome"),
    "search.authorised": _written(
        "searches", "a search was answered: candidates, or none",
        "search, run, outcome: how many were listed, refused: codes told",
        why="purpose, art6, case, family_informed",
        detail="fields given, household, hidden with true codes, too_many, decisions and looked_at: digests",
        beside="query, decisions (the receipts), looked_at, refused: each that was told",
    ),
    "search.completed": _written("searches", "a search's answer has left, to its last byte", "search, authorised_by"),
    "search.refused": _written(
        "searches", "a search was refused before any child was looked up, or a rule failed",
        "search, outcome: a code, refused: codes told",
        why="purpose, art6, case, family_informed", detail="as search.authorised, or the fault's name",
        beside="as search.authorised",
    ),
    "review.listed": _written("reviews.queue", "a reviewer read the queue of doubtful links",
                              "state, reason, agency, outcome"),
    "review.opened": _written("reviews.queue", "a reviewer opened a doubtful link", "review, reason, outcome"),
    "review.asked": _written("reviews.asking", "a reviewer's question, or a gateway that collected it",
                             "review, outcome"),
    "consider_sharing.listed": _written("considering", "a holder read what it is to consider",
                                        "state, considerations, outcome"),
    "ledger.listed": _written(
        "ledger", "a holder read who was shown what of its records, or which answers are recalled",
        "of (new, read, all, record, recalls), notices or recalls, outcome", beside="subjects, where they are many",
    ),
    "statistics.prepared": _written("statistics", "a table was counted for release", _RELEASE, why="purpose",
                                    detail="not_counted, withheld"),
    "statistics.refused": _written("statistics", "a table was not counted", "table, period, outcome: a code",
                                   why="purpose", detail="as statistics.prepared"),
    "statistics.opened": _written("statistics", "whoever checks read a prepared table", _RELEASE),
    "statistics.rejected": _written("statistics", "a second person refused a release", _RELEASE, why="reason"),
    "breakglass.opened": _written(
        "emergencies", "somebody broke the glass for one child, which opened one view",
        "search, view, ends_at, outcome, break_glass", why="purpose, case, reason: a code", detail="words",
    ),
    "breakglass.used": _reserved("an answer under broken glass", "disclosure.authorised names the opening it is under"),
    "breakglass.closed": _written("emergencies", "whoever broke the glass says that it is over", "opened, outcome",
                                  why="purpose"),
    "breakglass.reviewed": _written("reviewing", "a use of break-glass was reviewed", "event, decision, outcome",
                                    detail="note"),
    "breakglass.user_suspended": _reserved(
        "somebody may not break the glass for now", "no act: whoever's review is overdue is refused by the date alone"
    ),
    "audit.searched": _written(
        "reports.search reports.opening reviewing sampling analysing access", "somebody read in the log",
        "what was searched, or which event and sections were opened", why="reason: one of the four of s.62(4)",
    ),
    "audit.exported": _written("reports.exporting", "a report left as a file",
                               "report, format, period, rows, sha256, outcome", why="reason"),
    "audit.report_issued": _written("packs", "the month's pack was made", "period, sha256, outcome",
                                    why="reason"),
    "audit.flagged": _written("anomalies sampling", "a rule or a person flagged events, or a sample was drawn",
                              "rule or sample, counts, outcome"),
    "audit.reviewed": _written("reviewing", "an event was reviewed", "event, decision, outcome", detail="note"),
    "audit.signed_off": _written("reviewing", "a second person signed a review off", "event, decision, outcome",
                                 detail="note"),
    "audit.degraded": _written(
        "committing unsticking",
        "the log had no room, has room again, gave an event a fresh id for a taken one, or lost a body",
        "reason, outcome, event",
    ),
    "disclosure.authorised": _written(
        "disclosures", "a family view was decided, and something is shown",
        "search, view, run, outcome, categories: by source and mode, decisions: commitments to the receipts, "
        "refused: codes told",
        why="purpose, art6, threshold, case, family_informed, clauses, link, emergency: the opening it is under",
        detail="hidden: true codes with counts, looked_at",
        beside="decision/<source>: the full receipts; subjects; looked_at; refused: each that was told",
    ),
    "disclosure.completed": _written("disclosures", "a view has left, to its last byte", "view, authorised_by"),
    "disclosure.aborted": _written(
        "disclosures searches", "an answer was not taken: nothing left, or it broke off",
        "view or search, authorised_by, outcome: not_sent or broken_off",
    ),
    "disclosure.refused": _written("disclosures", "a family view was decided, and nothing is shown",
                                   "as disclosure.authorised", why="as disclosure.authorised",
                                   detail="as disclosure.authorised, or the fault's name",
                                   beside="as disclosure.authorised"),
    "disclosure.recalled": _written(
        "ledger", "an answer that showed several persons as one, or is reported to have, is recalled",
        "recalls: the answer's event, kind, run: or the report, outcome: split or reported", why="reason",
    ),
    "request.sent": _reserved("a holder was asked", _ASKING),
    "request.collected": _reserved("a holder has collected a request", _ASKING),
    "request.chased": _reserved("a holder was asked again", _ASKING),
    "request.overdue": _reserved("a request was not answered in time", _ASKING),
    "request.cancelled": _reserved("a request was taken back", _ASKING),
    "answer.received": _reserved("a holder has answered", _ASKING),
    "answer.narrowed": _reserved("a holder shares less than was asked", _ASKING),
    "answer.declined": _reserved("a holder does not share", _ASKING),
    "answer.released": _reserved("an answer was released to the asker", _ASKING),
    "answer.collected": _reserved("the asker has collected an answer", _ASKING),
    "standing_approval.set": _reserved("a holder answers such requests by rule", _ASKING),
    "standing_approval.used": _reserved("a rule has answered", _ASKING),
    "standing_approval.withdrawn": _reserved("a holder took its rule back", _ASKING),
    "verbal_share.logged": _reserved("information was shared by telephone", _ASKING),
    "verbal_share.corrected": _reserved("what was logged of that was put right", _ASKING),
    "consider_sharing.shared": _written("considering", "a holder says that it has shared",
                                        "consideration, kind, outcome", why="purpose"),
    "consider_sharing.declined": _written("considering", "a holder says why it will not share",
                                          "consideration, kind, outcome", why="purpose, reason"),
    "consider_sharing.lapsed": _reserved("an item was not decided in time", "the holder's inbox: items do not end"),
    "subject.report_issued": _written("access", "a subject's pack was made: who saw what, when and why",
                                      "sha256, entries, outcome", why="right", detail="withheld, ids",
                                      beside="what was withheld, and the ids"),
    "rectification.notified": _reserved("recipients were told of a rectification (Article 19)", _RIGHTS),
    "statistics.approved": _written("statistics", "a second person let a release go", _RELEASE),
    "statistics.disclosed": _written("statistics", "a released table was given out", _RELEASE),
    "subject.erased": _written("erasure", "a subject was erased; never whom",
                               "erasure, authority, proposed_by, counts, outcome"),
    "retention.run": _written(
        "retention erasure", "bodies expired by type and age, or the database's files were written anew",
        "outcome, counts, sha256 of the events' ids",
    ),
    "decision.made": _reserved("what was decided on a request", "the answer's own event holds it"),
    "notice.batch": _written(
        "considering", "a round was held, on its schedule, empty or not", "slot",
        detail="count, notices: commitment, failed", beside="notices, each salted; failed",
    ),
    "ledger.collected": _written("ledger", "a holder's read receipt", "notices, recalls: how many, sha256, outcome"),
    "subject.erasure_proposed": _written("erasure", "somebody proposed to erase a subject",
                                         "erasure, authority, ids: how many, outcome"),
    "subject.erasure_refused": _written("erasure", "an erasure is not carried out",
                                        "erasure, authority, holds, outcome: a code"),
    "subject.lift_proposed": _written("lifting", "somebody proposed that who was erased may be linked again",
                                      "lift, reason, ids: how many, outcome"),
    "subject.lift_refused": _written("lifting", "who was erased stays so", "lift, reason, outcome: a code"),
    "agreement.imported": _written("register", "a document was taken in", "agreement, digest, kind"),
    "agreement.signed": _written("register", "parties have signed", "agreement, digest, parties"),
    "agreement.activated": _written("activation", "an agreement is in force", "agreement, digest"),
    "agreement.suspended": _written("activation register", "the host, or a party, suspended an agreement",
                                    "agreement, party, since"),
    "agreement.resumed": _written("register", "a party takes part again", "agreement, party, since"),
    "agreement.withdrawn": _written("register", "a party takes part no more", "agreement, party, since"),
    "agreement.superseded": _written("register", "a newer version is in force",
                                     "agreement, party, newer, effective"),
    "agreement.warned": _written("expiry", "an end or a review is near", "agreement, code, due, days, stops"),
    "agreement.expired": _written("expiry", "an agreement has ended", "agreement, code, due, stops"),
    "agreement.review_overdue": _written("expiry", "a review is overdue", "agreement, code, due, days, stops"),
    "key.created": _reserved("a key was made", "log.opened, agency.enrolled and witness.enrolled name it"),
    "key.rotated": _written("shards", "the log's key is being handed over", "origin, old, new"),
    "key.revoked": _written("agencies shards", "a key holds no more", "key, origin"),
    "key.compromised": _written("shards", "the log's key is in others' hands", "origin, keys, trusted_below"),
    "auth.login": _written("reports.opening", "an officer signed in"),
    "auth.denied": _written(
        "reviewing reports.opening", "somebody was kept from deciding on their own event, or signed in without a role",
        "event, outcome",
    ),
    "auth.logout": _written("reports.opening", "an officer signed out; a session that ends by itself is no act"),
    "auth.role_changed": _reserved("an officer's role changed", "roles come with each sign-in"),
    "agency.enrolled": _written("agencies", "an agency takes part", "agency, flows, roles, keys"),
    "agency.changed": _written("agencies", "an agency's terms changed, or a flow is paused",
                               "agency, flows, roles, keys, flow, paused, state"),
    "agency.suspended": _written("agencies", "an agency takes part no more for now", "agency, state"),
    "config.changed": _written("anomalies", "a rule's threshold changed",
                               "setting, rule, version, name, before, value, reason"),
    "witness.enrolled": _written("witnesses", "a witness was taken in", "witness, key, run_by, quorum"),
    "witness.removed": _written("witnesses", "a witness was removed", "witness, key, quorum"),
    "witness.late": _written("witnesses", "a witness is behind, or has caught up",
                             "witness, since, size, log_size, quorum"),
    "witness.conflict": _written("witnesses", "a note of ours that can't be beside ours",
                                 "conflict, kind, size, log, notes_sha256"),
    "clock.anomaly": _written("shards", "the clock jumped", "step_ms"),
    "log.opened": _written("wiring shards", "a shard of the log begins", "origin; what it follows and how that ended"),
    "log.closed": _written("shards", "a shard ends", "origin, next, keys"),
    "log.discontinuity": _written("shards", "the log was put back, and cites what was witnessed last",
                                  "origin; the last witnessed checkpoint; what is missing"),
})  # fmt: skip
"""Every type of the closed set."""

LAW: Final = (
    ("s.62(1): collection, alteration, consultation, disclosure, combination, erasure",
     "`what.op`: one of these six, or `system`; fixed by the type"),
    ("s.62(2): date and time; so far as possible the identity of who consulted or disclosed",
     "the leaf's milliseconds; `who`: the organisation as client, and person, role, method and session from the "
     "gateway's signed statement, of which the digest is kept"),
    ("s.62(3): who disclosed, and the recipients", "`who`; `recipients`"),
    ("the justification: no duty any more (Data (Use and Access) Act 2025 s.82), kept as policy for UK GDPR "
     "Article 5(2)", "`why`: purpose, lawful basis, threshold, clauses, keyed case, reason"),
    ("s.62(4): used for lawfulness, self-monitoring, integrity and criminal proceedings alone",
     "`why.reason` of every event that reads the log"),
    ("s.62(5): to the Commissioner on request", "report R10 with proofs, and `auditor`, which needs nobody"),
)  # fmt: skip
"""Data Protection Act 2018 section 62, and where each part of it is met."""

_HEAD: Final = """\
# Events

Rendered from `audit/events.py` and `audit/taxonomy.py` (`python -m audit.taxonomy`); a test keeps it current.

The set is closed: an event of another type can't be made.  Every event has six sections, each under a salt of its own.
`who` names the organisation and, where a person acts, that person by an opaque id, with role, method and session;
`what` holds `v`, `id`, `type` and `op` beside the fields below; `subjects` and `recipients` hold only what was shown.
Nothing is a name, a number or a case reference in clear.  An asker's receipt never opens `detail`.

## The law

| Data Protection Act 2018 section 62 | where |
|---|---|
"""


def rendered() -> str:
    """The text of `EVENTS.md`."""
    return "\n".join([_HEAD + "\n".join(f"| {law} | {where} |" for law, where in LAW), *_operations()]) + "\n"


def _operations() -> Iterator[str]:
    for op in Op:
        types = [name for name in EVENT_TYPES if OPS[name] is op]
        there = [name for name in types if not KINDS[name].reserved]
        yield f"\n## {op.value.capitalize()}\n\n| type | what happened | written by | what | why | detail | beside |"
        yield "|---|---|---|---|---|---|---|"
        for name in there:
            kind = KINDS[name]
            by = ", ".join(f"`broker.{one}`" for one in kind.by)
            cells = (f"`{name}`", kind.words, by, kind.what, kind.why, kind.detail, kind.beside)
            yield "| " + " | ".join(cells) + " |"
        if reserved := [name for name in types if KINDS[name].reserved]:
            yield "\nReserved, and written by nothing yet:\n"
            yield from (f"- `{name}`: {KINDS[name].words} ({KINDS[name].reserved})" for name in reserved)


if __name__ == "__main__":
    sys.stdout.write(rendered())
