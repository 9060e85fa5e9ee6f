"""From what was typed to what the broker gets: encodings, a keyed token of the case, codes.  Names end here."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any

from linkage.agency.encode import encode_row
from linkage.agency.gateway.typed import Typed, TypedPerson
from linkage.agency.gateway.words import PURPOSES
from linkage.agency.settings import Home
from linkage.records import told_year


@dataclass(frozen=True, slots=True)
class SearchEncoder:
    """Encodes under the keys of one agency's home."""

    home: Home

    def search(self, typed: Typed, *, today: date) -> dict[str, Any]:
        """The body of POST /v1/searches.  `typed` has no faults."""
        basis = PURPOSES[typed.purpose].basis
        child, *household = typed.people()
        return {
            "purpose": typed.purpose,
            "basis": {"art6": basis.art6, "condition": list(basis.condition), "gateway": list(basis.gateway)},
            "case": self.home.case_token(typed.case_reference),
            "family_informed": typed.family_informed,
            "acknowledged": True,
            "profile": self.home.profile,
            "key_epoch": self.home.link_keys.epoch,
            "key_fingerprint": self.home.link_keys.fingerprint(self.home.profile),
            "subject": self._row(child, today),
            "household": [self._row(member, today) | {"relation": member.relation} for member in household],
        }

    def _row(self, person: TypedPerson, today: date) -> dict[str, Any]:
        row = encode_row(person.as_person(), self.home.link_keys, self.home.profile, today=today)
        typed = person.birth_year()  # where no exact date was
        return row | {"birth_year": row["birth_year"] or (typed and told_year(typed, today.year))}
