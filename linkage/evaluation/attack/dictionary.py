"""The dictionary attack: everybody there could be, encoded by an attacker who lacks one key; and the control with all.

The dictionary holds every child of the population, exactly as written down, among as many strangers, and every number a
child could have.  A hit is an encoding in the vault that equals one in the dictionary.  The pepper is modelled as the
broker applies it (HMAC-SHA-256 of a token, its first eight bytes); the vault as AES-256-GCM over the bytes.
Source: Niedermeyer, Steinmetzer, Kroll and Schnell 2014; Culnane, Rubinstein and Teague 2017 (missing or public keys).
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import numpy as np
import pyarrow as pa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from linkage.agency.encode import encode_people
from linkage.agency.keys import LinkageKeys
from linkage.evaluation.attack.bench import EPOCH, PARTNERSHIP, Bench
from linkage.evaluation.attack.population import Ints, People, population, together
from linkage.evaluation.attack.results import AttackResult
from linkage.records import FILTERS, PROFILES, TOKENS, Profile, filter_columns

STRANGERS: Final = 1  # for each child
FIRST_NUMBER: Final = 9_990_000_000  # NHS numbers from here are never issued


def dictionary(bench: Bench) -> Iterator[AttackResult]:
    """One case for each key that is missing, one for what a right key without the pepper gives, and the control."""
    setting = bench.setting
    people = bench.population()
    rng = np.random.default_rng([setting.seed, 4])
    link, other, pepper, wrong = (rng.bytes(32) for _ in range(4))
    profile = setting.profile
    foreign: Profile = next(name for name in PROFILES if name != profile)
    keys = LinkageKeys(link, partnership=PARTNERSHIP, epoch=EPOCH)
    stored = _peppered(_wire(people, keys, profile), pepper)
    words = _dictionary(people, setting.seed)

    def made(secret: bytes, *, epoch: str = EPOCH, under: Profile = profile, spice: bytes = pepper) -> set[bytes]:
        of_attacker = LinkageKeys(secret, partnership=PARTNERSHIP, epoch=epoch)
        return _entries(_peppered(_wire(words, of_attacker, under), spice), under)

    held = [
        _entries_by_row(stored, profile, kinds) for kinds in (("filter", "token", "id"), ("token", "id"), ("filter",))
    ]
    sealed = _sealed(stored, rng)
    cases = (
        ("without the linkage key", "all but the linkage key", held[0], made(other)),
        ("of another epoch", "the key of another epoch; pepper, vault key", held[0], made(link, epoch="2025-1")),
        (
            "of another profile",
            "the key, used for another profile; pepper, vault key",
            held[0],
            made(link, under=foreign),
        ),
        ("without the pepper: tokens", "linkage key and vault key, no pepper", held[1], made(link, spice=wrong)),
        (
            "control: without the pepper, filters",
            "linkage key and vault key, no pepper",
            held[2],
            made(link, spice=wrong),
        ),
        ("control: all keys", "linkage key, pepper and vault key", held[0], made(link)),
    )
    for case, knowledge, rows, entries in cases:
        yield _result(bench, case, knowledge, sum(bool(row & entries) for row in rows), len(people))
    everything = made(link)
    found = sum(any(sealed.find(entry) >= 0 for entry in row) for row in _sampled(held[0], everything))
    yield _result(bench, "without the vault key", "linkage key and pepper; sealed files", found, len(people))


def _sampled(rows: list[set[bytes]], entries: set[bytes]) -> Iterator[set[bytes]]:
    """For each record the dictionary's own encodings of it: what would be looked for in the sealed bytes."""
    for row in rows:
        yield set(sorted(row & entries)[:2])


def _dictionary(people: People, seed: int) -> People:
    strangers = population(len(people) * STRANGERS, seed=seed + 1)
    others = strangers.with_columns({"postcode": strangers.postcode % len(people.codes)})
    moved = people.take(np.arange(len(people)))
    return together(moved, _under(others, people))


def _under(others: People, people: People) -> People:
    return replace(others, codes=people.codes, person=np.arange(len(others)) + len(people))


def _wire(people: People, keys: LinkageKeys, profile: Profile) -> pa.Table:
    numbers = pa.array([str(FIRST_NUMBER + person) for person in people.person.tolist()], pa.string())
    return encode_people(people.clear().append_column("nhs_number", numbers), keys, profile)


def _peppered(table: pa.Table, pepper: bytes) -> pa.Table:
    """As the broker keeps it: each token and identifier by HMAC-SHA-256 of its eight bytes."""
    for at, name in enumerate(table.column_names):
        if name.startswith(("t_", "id_")):
            column = table.column(name)
            values = column.fill_null(0).to_numpy().astype("<i8").tobytes()
            digests = b"".join(
                hmac.digest(pepper, values[start : start + 8], "sha256")[:8] for start in range(0, len(values), 8)
            )
            made = pa.array(np.frombuffer(digests, "<i8"), mask=column.is_null().to_numpy())
            table = table.set_column(at, name, made)
    return table


def _entries_by_row(table: pa.Table, profile: Profile, kinds: tuple[str, ...]) -> list[set[bytes]]:
    """For each record its encodings as bytes, each with the column it is of."""
    rows: list[set[bytes]] = [set() for _ in range(table.num_rows)]
    if "filter" in kinds:
        for name in FILTERS[profile]:
            _add(rows, b"", [table.column(column) for column in filter_columns(name)[:-1]])
    if "token" in kinds:
        for name in TOKENS[profile]:
            _add(rows, b"", [table.column(f"t_{name}")])
    if "id" in kinds:
        _add(rows, b"", [table.column("id_nhs_number")])
    return rows


def _add(rows: list[set[bytes]], prefix: bytes, columns: list[pa.ChunkedArray]) -> None:
    present = ~columns[0].is_null().to_numpy()
    words: Ints = np.column_stack([column.fill_null(0).to_numpy() for column in columns]).astype("<i8")
    raw, width = words.tobytes(), 8 * len(columns)
    for at in np.flatnonzero(present).tolist():
        rows[at].add(prefix + raw[at * width : (at + 1) * width])


def _entries(table: pa.Table, profile: Profile) -> set[bytes]:
    return set().union(*_entries_by_row(table, profile, ("filter", "token", "id")))


def _sealed(table: pa.Table, rng: np.random.Generator) -> bytes:
    """The table's columns as one run of bytes, sealed under a key that nobody keeps."""
    raw = b"".join(
        column.fill_null(0).to_numpy().tobytes() for column in table.columns if pa.types.is_integer(column.type)
    )
    return AESGCM(rng.bytes(32)).encrypt(rng.bytes(12), raw, None)


def _result(bench: Bench, case: str, knowledge: str, hits: int, of: int) -> AttackResult:
    return AttackResult(
        attack="dictionary", case=case, profile=bench.setting.profile, knowledge=knowledge, what="record", children=of,
        population=of, overlap=1.0, errors=False, seed=bench.setting.seed, claimed=hits, right=hits, trivial=1 / of,
    )  # fmt: skip
