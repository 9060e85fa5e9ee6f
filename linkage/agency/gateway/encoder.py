"""From what was typed to what the broker gets: encodings, a keyed token of the case, codes.  Names end here."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import Any

from linkage.agency.encode import encode_row
from linkage.agency.gateway.typed import Typed, TypedPerson
from linkage.agency.gateway.words import PURPOSES
from linkage.agency.keys import LinkageKeys
from linkage.agency.settings import Home
from linkage.records import told_year


class SearchEncoder:
    """Encodes under the keys of one agency's home."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self._taken: LinkageKeys | None = None

    def each_key(self) -> Iterator[LinkageKeys]:
        """The keys to encode under, best first: while the linkage key is rotated there are those of two epochs."""
        first = self._taken or self.home.link_keys
        yield first
        for epoch in self.home.other_epochs(first.epoch):
            yield self.home.keys_of(epoch)

    def taken(self, keys: LinkageKeys) -> None:
        """The broker has taken what was encoded under these: they are first from now on."""
        self._taken = keys

    def search(self, typed: Typed, *, today: date, keys: LinkageKeys | None = None) -> dict[str, Any]:
        """The body of POST /v1/searches.  `typed` has no faults.  Without `keys`, under those that come first."""
        keys = keys or next(self.each_key())
        basis = PURPOSES[typed.purpose].basis
        child, *household = typed.people()
        return {
            "purpose": typed.purpose,
            "basis": {"art6": basis.art6, "condition": list(basis.condition), "gateway": list(basis.gateway)},
            "case": self.home.case_token(typed.case_reference),
            "family_informed": typed.family_informed,
            "acknowledged": True,
            "profile": self.home.profile,
            "key_epoch": keys.epoch,
            "key_fingerprint": keys.fingerprint(self.home.profile),
            "subject": self._row(child, today, keys),
            "household": [self._row(member, today, keys) | {"relation": member.relation} for member in household],
        }

    def _row(self, person: TypedPerson, today: date, keys: LinkageKeys) -> dict[str, Any]:
        row = encode_row(person.as_person(), keys, self.home.profile, today=today)
        typed = person.birth_year()  # where no exact date was
        return row | {"birth_year": row["birth_year"] or (typed and told_year(typed, today.year))}
