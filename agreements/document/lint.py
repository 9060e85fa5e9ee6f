"""What loads and should be looked at before anybody signs, by the document alone."""

from __future__ import annotations

from collections.abc import Iterator

from agreements.agreement import Agreement, london_day
from agreements.document.parsing import Finding
from agreements.vocabulary import RECORD, Mode, Vocabulary


def lint(agreement: Agreement, lists: Vocabulary) -> Iterator[Finding]:
    """What loads and should be looked at."""
    for index, limit in enumerate(agreement.limits):
        if limit.tag is None and RECORD in limit.categories and limit.at_most is Mode.NONE:
            message = "it holds back everything, always: no clause of this agreement can give anything"
            yield Finding(f"limits[{index}]", message, "name a tag or categories", "lint")
    body = agreement.body
    covered = {
        (row["party"], purpose, name)
        for row in body.get("legal", ())
        for purpose in lists.down(row["purpose"])
        for name in row["categories"]
    }
    for index, grant in enumerate(agreement.grants):
        where = f"grants[{index}]"
        purposes = {
            purpose for given in grant.purposes for purpose in lists.down(given) if not lists.purposes[purpose].group
        }
        for source in sorted(grant.sources):
            owned = agreement.parties[source].discloses
            named = {name for name in grant.modes if name == RECORD or lists.categories[name].sector in owned}
            if any((source, purpose, name) not in covered for name in named for purpose in purposes):
                yield Finding(where, f"no legal row for all that {source} gives", "add [[legal]] rows", "lint")
        if Mode.AGGREGATE not in grant.modes.values() and (idle := lists.without_items(grant.roles)):
            message = f"{', '.join(idle)}: nobody in such a role sees what casework shows"
            yield Finding(f"{where}.to.roles", message, "take it out, or name the role of who does the work", "lint")
        for key, statutes in (("gateway", grant.basis.gateways), ("le_authority", grant.basis.le_authority)):
            for code in sorted(statutes - lists.in_force(statutes, london_day(agreement.period.start))):
                since = lists.in_force_from(code)
                when = "its day is not set yet" if since is None else f"from {since.isoformat()}"
                message = f"{code} is not in force from the start ({when}): until then it opens nothing"
                yield Finding(f"{where}.basis.{key}", message, "name one that is in force beside it", "lint")
        if "SAFEGUARDING" in grant.purposes:
            yield Finding(f"{where}.for", "every safeguarding purpose at once", "name the purposes needed", "lint")
        if not grant.case_reference and Mode.AGGREGATE not in grant.modes.values() and grant.break_glass is None:
            yield Finding(f"{where}.given", "it asks for no case reference", "write case_reference = true", "lint")
        if "police" in {name.partition(".")[0] for name in grant.modes} and not grant.basis.le_authority:
            message = "no authority for law-enforcement items: those are never shown under it"
            yield Finding(f"{where}.basis.le_authority", message, "name the authorising statute", "lint")
