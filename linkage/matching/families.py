"""Persons, relationships and household tokens to the family network: typed, dated, sourced edges between persons."""

from __future__ import annotations

from typing import Final

import pyarrow as pa

from linkage.matching.overrides import Overrides

FAMILY: Final = pa.schema(
    [
        ("person_a", pa.string()),  # person_a is the <type> of person_b
        ("person_b", pa.string()),
        ("type", pa.string()),
        ("agency", pa.string()),
        ("flow", pa.string()),
        ("verified", pa.bool_()),
        ("valid_from", pa.date32()),
        ("valid_to", pa.date32()),
    ]
)


def families(clusters: pa.Table, relationships: pa.Table, *, overrides: Overrides | None = None) -> pa.Table:
    """Family edges between persons, as agencies stated them; `relationships` are the wire's with `agency` and `flow`.

    Nothing is inferred from names.  `household` joins those under one household token, of any agency, unless more
    than HOUSEHOLD_CAP persons are.  No path of edges leads from one side of a severed pair to the other: pass
    `Overrides.with_markers(persons)`.
    """
    raise NotImplementedError
