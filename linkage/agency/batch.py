"""From an extract to a batch in a folder: three tables and a manifest, hashed, signed, with canary tokens.

A batch comes into being whole: it is written beside its place, put on disk, and renamed.  Whatever goes wrong before
that leaves no batch.  `<folder>.rejects.csv` beside it is for the agency's own data team and is never submitted.
"""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from linkage.agency import crosswalk, extract, items, mapping, persons, told
from linkage.agency.clock import rfc3339
from linkage.agency.clock import today as day_of
from linkage.agency.codes import Codes
from linkage.agency.encode import ENCODER, encode_people, household_token
from linkage.agency.keys import keyed_hex
from linkage.agency.mapping import BadMapping
from linkage.agency.mapping import Mapping as BatchMapping
from linkage.agency.people import STANDARD_IDENTIFIERS
from linkage.agency.rows import Report, Sheet
from linkage.agency.settings import Home, flush_folder, write_whole
from linkage.agency.standardise import Rules, Standardised, share_on_1_january, standardise_people
from linkage.records import SCHEMA, TABLES, Manifest, Profile, TableEntry, persons_schema

CHUNK_SIZE: Final = 8 << 20
ROW_GROUP: Final = 1 << 14
VALID_FOR: Final = timedelta(days=7)
MOST_DATELESS: Final = 0.2  # of persons whose date of birth is none: beyond, the format must be wrong
FILES: Final = ("manifest.json", "manifest.jws", *(f"{table}.parquet" for table in TABLES))


class TooManyBad(ValueError):
    """So many rows are bad that the extract itself must be wrong: no batch was made; the report says which rows."""

    def __init__(self, report: Report, limit: float, path: Path) -> None:
        worst = max(report.counts().items(), key=lambda entry: (entry[0].startswith("error"), entry[1]))
        super().__init__(
            f"{report.bad_rows} of {report.rows} rows are bad, more than max_bad_share {limit:.1%}; most often: "
            f"{worst[0].removeprefix('error ')} ({worst[1]} rows); each is in {path}"
            if report.bad_share > limit or not report.bad_dates
            else f"{report.bad_dates} of {report.people} dates of birth are none (bad_date and the like): is "
            f"persons.formats.date_of_birth right?  Each is in {path}"
        )
        self.report = report


class BatchExists(ValueError):
    """The folder for a batch holds something else, which is left alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """A batch that was made, and what was found on the way."""

    folder: Path
    manifest: Manifest
    report: Report
    rejects: Path
    change: told.Delta | None = None  # what a delta says; None for a full batch

    def summary(self) -> dict[str, Any]:
        """Plain data for `--json`: counts and digests, nothing of a person."""
        return {
            "batch": str(self.folder),
            "flow": self.manifest.flow,
            "kind": self.manifest.kind,
            "sequence": self.manifest.sequence,
            "profile": self.manifest.profile,
            "key_fingerprint": self.manifest.key_fingerprint,
            "manifest_sha256": hashlib.sha256(self.manifest.canonical()).hexdigest(),
            "rows": {name: entry.rows for name, entry in self.manifest.tables.items()},
            "changed": None if self.change is None else dict(self.change.changed),
            "withdrawn": None if self.change is None else dict(self.change.withdrawn),
            "bad_rows": self.report.bad_rows,
            "bad_dates": self.report.bad_dates,
            "read_rows": self.report.rows,
            "found": self.report.counts(),
            "rejects": str(self.rejects),
        }


def encode_extract(
    mapping_path: Path,
    home: Home,
    out: Path,
    *,
    codes: Codes,
    now: datetime,
    max_bad_share: float | None = None,
    delta: bool = False,
    progress: Callable[[str, int, int], None] = lambda step, done, total: None,
) -> Encoded:
    """Make the batch that a mapping describes, in the folder `out`.

    `delta`: of what the extract holds only what the last accepted batch of the flow has not told, and what it told that
    is not there any more; a full batch where that is not known (`told`), or another batch awaits its verdict.
    Raises BadMapping, BadExtract, AmbiguousDates, TooManyBad, BatchExists, BadKey or BadHome, leaving no batch.
    """
    wanted = _checked(mapping.load(mapping_path), home, codes)
    rejects = out.with_name(f"{out.name}.rejects.csv")
    _may_replace(out)
    profile, today, report = home.profile, day_of(now), Report()
    raw = extract.fields(wanted.persons)
    report.people = raw.num_rows
    rules = _rules(wanted)
    share_on_1_january(raw, rules)
    sheet = Sheet(wanted.persons, raw, report)
    standard = standardise_people(raw, rules, today=today)
    progress("persons", 0, raw.num_rows)
    people = persons.people(
        wanted,
        sheet,
        standard,
        record_ref=lambda local_id: home.record_ref(wanted.flow, local_id),
        sever_ref=lambda ref: keyed_hex(home.link_keys.key("id/sever", profile), home.agency, ref),
        today=today,
    )
    related = persons.households(wanted, people.homes, lambda uprn: household_token(home.link_keys, profile, uprn))
    if wanted.relationships is not None:
        found = Sheet(wanted.relationships, extract.fields(wanted.relationships), report)
        related += persons.relationships(wanted.relationships, found, people.refs, people.left_out, today=today)
    listed: list[tuple[Any, ...]] = []
    for source in wanted.items:
        progress(source.category, 0, len(wanted.items))
        found = Sheet(source, extract.fields(source), report)
        listed += items.items(
            source,
            found,
            people.refs,
            people.left_out,
            codes,
            flow=wanted.flow,
            record_key=home.record_key,
            today=today,
        )
    write_whole(rejects, report.as_csv())
    limit = wanted.max_bad_share if max_bad_share is None else max_bad_share
    if report.bad_share > limit or report.dateless_share > max(limit, MOST_DATELESS) or not people.refs:
        raise TooManyBad(report, limit, rejects)
    all_told = told.of(home, people, related, listed)
    stamp = " ".join((profile, home.link_keys.epoch, home.link_keys.fingerprint(profile), ENCODER))
    before = told.last(home, wanted.flow, stamp=stamp) if delta and not _waiting(home, wanted.flow) else None
    change = None if before is None else told.delta(before, all_told, related, listed)
    said, gone = people, list[str]()
    if change is not None:
        said, gone, related, listed = people.only(change.named), [*change.gone], change.relationships, change.items
    manifest = _manifest(wanted, home, codes, now, kind="full" if change is None else "delta")
    with _written_aside(out) as folder:
        _write_persons(folder / "persons.parquet", said, gone, home, profile, progress)
        _write_table(folder / "relationships.parquet", persons.relationships_table(related))
        _write_table(folder / "items.parquet", items.items_table(listed))
        manifest = replace(manifest, tables={name: digest(folder / f"{name}.parquet") for name in TABLES})
        payload = manifest.canonical()
        told.keep(home, wanted.flow, hashlib.sha256(payload).hexdigest(), all_told, stamp=stamp)
        (folder / "manifest.json").write_bytes(payload)
        (folder / "manifest.jws").write_text(sign_detached(payload, home.signing_key, home.signing_kid))
        with crosswalk.opened(
            home.crosswalk_path
        ) as known:  # before the rename: no ref leaves that can't be turned back
            known.note(
                wanted.flow,
                ((ref, local_id) for local_id, ref in people.refs.items()),
                _seen(raw, standard, people.refs),
                at=rfc3339(now),
            )
    told.tidy(home, wanted.flow, now=now)
    return Encoded(folder=out, manifest=manifest, report=report, rejects=rejects, change=change)


def digest(path: Path, chunk_size: int = CHUNK_SIZE) -> TableEntry:
    """Rows, size and SHA-256 of a table's file and of its chunks, in one pass that holds one chunk at a time."""
    whole, chunks = hashlib.sha256(), []
    with path.open("rb") as file:
        while chunk := file.read(chunk_size):
            whole.update(chunk)
            chunks.append(hashlib.sha256(chunk).hexdigest())
    rows = pq.read_metadata(path).num_rows
    return TableEntry(rows=rows, size=path.stat().st_size, sha256=whole.hexdigest(), chunks=tuple(chunks))


def sign_detached(payload: bytes, key: Ed25519PrivateKey, kid: str) -> str:
    """A detached JWS (RFC 7515 appendix F), Ed25519: `protected..signature`."""
    protected = _base64url(rfc8785.dumps({"alg": "Ed25519", "kid": kid}))
    signature = key.sign(f"{protected}.{_base64url(payload)}".encode("ascii"))
    return f"{protected}..{_base64url(signature)}"


def _base64url(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode("ascii")


def _checked(wanted: BatchMapping, home: Home, codes: Codes) -> BatchMapping:
    """Raises BadMapping for another agency's mapping, and for a category that is unknown or never sent."""
    if wanted.agency != home.agency:
        raise BadMapping(f"agency: the mapping is of {wanted.agency!r}, the home of {home.agency!r}")
    for source in wanted.items:
        known = codes.categories.get(source.category)
        if known is None:
            raise BadMapping(f"{source.key}: {source.category!r} is not one of {', '.join(sorted(codes.categories))}")
        if known.never_ingest:
            raise BadMapping(
                f"{source.key}: this category is never sent: take the block out, and tell the data steward"
            )
    return wanted


def _rules(wanted: BatchMapping) -> Rules:
    return Rules(
        date_format=wanted.persons.formats.get("date_of_birth", "%Y-%m-%d"),
        default_dates=wanted.persons.default_dates,
        not_postcodes=wanted.persons.not_postcodes,
    )


def _manifest(wanted: BatchMapping, home: Home, codes: Codes, now: datetime, *, kind: str) -> Manifest:
    held = home.state(wanted.flow)
    keys = home.link_keys
    today = day_of(now)
    return Manifest(
        schema=SCHEMA,
        agency=home.agency,
        flow=wanted.flow,
        agreements=wanted.agreements,
        profile=home.profile,
        encoder=ENCODER,
        codes_sha256=codes.sha256,
        key_epoch=keys.epoch,
        key_fingerprint=keys.fingerprint(home.profile),
        canaries=keys.canaries(home.profile),
        sequence=max(int(held["sequence"]), _waiting(home, wanted.flow)) + 1,
        kind=kind,
        period_from=(today - timedelta(days=1)).isoformat(),
        period_to=today.isoformat(),
        extracted_at=rfc3339(now),
        expires_at=rfc3339(now + VALID_FOR),
        previous=str(held["manifest_sha256"]),
        duplicates=wanted.persons.duplicates,
        chunk_size=CHUNK_SIZE,
        tables={},
    )


def _waiting(home: Home, flow: str) -> int:
    """The number of a batch that was handed in and has no verdict here yet, else 0.

    Nothing can be built on it, and its number is taken: only a full batch goes beyond it.
    """
    return int((home.state(flow).get("pending") or {}).get("sequence", 0))


def _write_persons(
    path: Path,
    people: persons.People,
    gone: Sequence[str],
    home: Home,
    profile: Profile,
    progress: Callable[[str, int, int], None],
) -> None:
    """Encode and write a row group at a time, so that memory does not grow with the extract; then who is `gone`."""
    schema, total = persons_schema(profile), people.standard.num_rows
    with pq.ParquetWriter(
        path, schema, compression="zstd", use_dictionary=["person_role", "sex", "shield", "op"]
    ) as file:
        for start in range(0, total, ROW_GROUP):
            standard = people.standard.slice(start, ROW_GROUP)
            encoded = encode_people(standard, home.link_keys, profile, agency=home.agency)
            attributes = people.attributes.slice(start, ROW_GROUP)
            columns = {name: attributes.column(name) for name in attributes.column_names}
            columns |= {name: encoded.column(name) for name in encoded.column_names}
            file.write_table(pa.table([columns[name] for name in schema.names], schema=schema))
            progress("encoded", min(start + ROW_GROUP, total), total)
        if gone:
            known = {"op": pa.array(["delete"] * len(gone), pa.string()), "record_ref": pa.array(gone, pa.string())}
            rest = {field.name: pa.nulls(len(gone), field.type) for field in schema if field.name not in known}
            file.write_table(pa.table([(known | rest)[name] for name in schema.names], schema=schema))


def _write_table(path: Path, table: pa.Table) -> None:
    pq.write_table(table, path, compression="zstd", row_group_size=ROW_GROUP)


def _seen(raw: pa.Table, standard: Standardised, refs: Mapping[str, str]) -> Iterator[crosswalk.Seen]:
    """Every identifier of the records in the batch: as the extract had it, and its normal form if it passed."""
    ids = raw.column("local_id").to_pylist()
    current = standard.people.column("nhs_number").to_pylist()
    for field in STANDARD_IDENTIFIERS:
        if field not in raw.column_names:
            continue
        given, normal = raw.column(field).to_pylist(), standard.people.column(field).to_pylist()
        for row, text in enumerate(given):
            if text is not None and (ref := refs.get(ids[row])) is not None:
                newer = current[row] if field == "superseded_nhs_number" else None
                yield crosswalk.Seen(record_ref=ref, field=field, raw=text, normal=normal[row], superseded_by=newer)


def _may_replace(out: Path) -> None:
    if out.is_symlink() or (out.exists() and (not out.is_dir() or {one.name for one in out.iterdir()} - set(FILES))):
        raise BatchExists(f"{out} is there and is not a batch; name another folder")


@contextmanager
def _written_aside(out: Path) -> Iterator[Path]:
    """A folder that becomes `out`, whole and on disk, if nothing is raised, and vanishes otherwise."""
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    try:
        yield folder
        for file in folder.iterdir():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
        flush_folder(folder)
        if out.exists():
            shutil.rmtree(out)
        folder.replace(out)
        flush_folder(out.parent)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
