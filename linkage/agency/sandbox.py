"""A broker to try against, with no broker: it takes batches as the real one does, in memory, and proves nothing.

For whoever builds an agency's side: the routes, answers and refusals of submission, on this machine, offline.  It
checks what can be checked without the partnership: who calls, signature, canonical form, digests, order of nights,
idempotency.  Of the rows it looks at none, so that its verdict is what it was told to give.  Its receipts say
`sandbox` and bear no proof.  It can be told to fail as networks do: a lost answer, a busy broker, a token that has
run out.

A test holds its answers to those of the real broker.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import secrets
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Literal, get_args
from urllib.parse import parse_qs, urlsplit
from zoneinfo import ZoneInfo

import rfc8785
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from linkage.agency.settings import Home
from linkage.records import MANIFEST_MEDIA_TYPE, SCHEMA, TABLE_MEDIA_TYPE, TABLES, BadManifest, Manifest

TOKEN_SECONDS: Final = 600
LONGEST_ASSERTION: Final = 300
OPEN_BATCHES: Final = 4
OPEN_FOR: Final = timedelta(hours=24)
FAREWELL: Final = timedelta(days=90)  # before a form's last day, when the sandbox begins to say so
SMALLEST_CHUNK: Final = 1024 * 1024
LARGEST_CHUNK: Final = 64 * SMALLEST_CHUNK
LARGEST_BODY: Final = 1024 * 1024

Verdict = Literal["accepted", "rejected", "quarantined"]
VERDICTS: Final[tuple[Verdict, ...]] = get_args(Verdict)
TROUBLES: Final = ("lost-answer", "busy", "expired-token")

_BATCH: Final = re.compile(r"/v1/flows/([^/]+)/batches/([^/]+)(?:/(.+))?")
_CHUNK: Final = re.compile(r"([^/]+)/chunks/(\d+)")
_FLOW: Final = re.compile(r"/v1/flows/([^/]+)")
_HEARTBEAT: Final = re.compile(r"/v1/flows/([^/]+)/heartbeat")
_KEY: Final = re.compile(r"[A-Za-z0-9._:-]{8,128}")
_DIGEST: Final = re.compile(r"sha-256=:([A-Za-z0-9+/]{43}=):")


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer; `status` 0: the connection is cut instead, as when an answer is lost."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


class _Refused(Exception):
    def __init__(self, status: int, slug: str, detail: str, **headers: str) -> None:
        super().__init__(detail)
        self.status, self.slug, self.headers = status, slug, headers


@dataclass
class _Batch:
    id: str
    manifest: Manifest
    sha256: str
    key: str
    first: bytes
    expires_at: datetime
    state: str = "open"
    reason: str | None = None
    chunks: dict[tuple[str, int], bytes] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def missing(self) -> list[dict[str, Any]]:
        return [
            {"table": table, "chunk": number}
            for table in TABLES
            for number in range(len(self.manifest.tables[table].chunks))
            if (table, number) not in self.chunks
        ]

    def told(self) -> bytes:
        missing = self.missing() if self.state == "open" else []
        return _json(
            {"batch": self.id, "state": self.state, "missing": missing, "counts": self.counts, "reason": self.reason}
        )


class Sandbox:
    """One agency's broker to try against: `answer` a request.  Several threads may ask."""

    def __init__(
        self,
        home: Home,
        *,
        base: str,
        now: Callable[[], datetime],
        verdict: Verdict = "accepted",
        trouble: str = "",
        every: int = 3,
        sunset: date | None = None,
    ) -> None:
        """`trouble`, if one is named, befalls each `every`-th request, and never two of them on end.  `sunset`: the
        last day (London) on which this form of manifest is taken, as answers then say.
        """
        self._home, self._base, self._now, self._verdict = home, base, now, verdict
        self._trouble, self._every, self._asked = trouble, max(3, every), 0
        self._sunset = sunset
        self._heard: dict[str, datetime] = {}
        self._batches: dict[str, _Batch] = {}
        self._tokens: dict[str, datetime] = {}
        self._spent: set[str] = set()
        self._taken: dict[str, tuple[int, str]] = {}  # by flow: sequence, manifest's digest
        self._lock = threading.Lock()

    def answer(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """The answer to a request; header names in any case."""
        sent = {name.lower(): value for name, value in headers.items()}
        with self._lock:
            befallen = self._befallen()
            if befallen == "busy":
                return _problem(_Refused(429, "too-many", "the sandbox is busy, as it was told", Retry_After="1"))
            if befallen == "expired-token":
                self._tokens.clear()
            try:
                answer = self._answer(method, target, sent, body)
            except _Refused as refused:
                answer = _problem(refused)
            return Answer(0) if befallen == "lost-answer" else answer

    def _befallen(self) -> str:
        self._asked += 1
        return self._trouble if self._trouble and self._asked % self._every == 0 else ""

    def _answer(self, method: str, target: str, sent: Mapping[str, str], body: bytes) -> Answer:
        split = urlsplit(target)
        if (method, split.path) == ("POST", "/oauth2/token"):
            return self._token(body)
        bearer = sent.get("authorization", "").partition(" ")
        if bearer[0].lower() != "bearer" or self._tokens.get(bearer[2], self._now()) <= self._now():
            raise _Refused(401, "not-signed-in", "a valid credential is due", WWW_Authenticate="Bearer")
        if method == "GET" and (flow := _FLOW.fullmatch(split.path)):
            return self._standing(flow[1])
        if method == "POST" and (flow := _HEARTBEAT.fullmatch(split.path)):
            self._heard[flow[1]] = self._now()
            return Answer(204)
        if method == "POST" and split.path.endswith("/batches") and (flow := _FLOW.match(split.path)):
            return self._open(flow[1], sent, body)
        if found := _BATCH.fullmatch(split.path):
            batch = self._batches.get(found[2])
            if batch is None or batch.manifest.flow != found[1]:
                raise _Refused(404, "not-found", "there is no such batch")
            return self._on(batch, method, found[3] or "", parse_qs(split.query), sent, body)
        raise _Refused(404, "not-found", "the sandbox has the routes of submission, and no other")

    def _token(self, body: bytes) -> Answer:
        form = {name: values[0] for name, values in parse_qs(body.decode("ascii", "replace")).items()}
        if form.get("grant_type") != "client_credentials":
            return Answer(400, _json({"error": "unsupported_grant_type"}))
        said = form.get("client_assertion", "")
        try:
            token = jwt.decode(said, ECKey.import_key(self._home.public["client"]), algorithms=["ES256"])
            claims, at = token.claims, self._now().timestamp()
            agency, ends, jti = self._home.agency, claims["exp"], str(claims["jti"])
            good = claims["iss"] == claims["sub"] == agency and claims["aud"] == f"{self._base}/oauth2/token"
            good = good and at < ends <= claims["iat"] + LONGEST_ASSERTION and jti not in self._spent
        except (JoseError, ValueError, KeyError, TypeError):
            good, jti = False, ""
        if not good:
            return Answer(401, _json({"error": "invalid_client"}))
        self._spent.add(jti)
        made = secrets.token_urlsafe(24)
        self._tokens[made] = self._now() + timedelta(seconds=TOKEN_SECONDS)
        return Answer(200, _json({"access_token": made, "token_type": "Bearer", "expires_in": TOKEN_SECONDS}))

    def _standing(self, flow: str) -> Answer:
        sequence, digest = self._taken.get(flow, (0, ""))
        here = [one for one in self._batches.values() if one.manifest.flow == flow]
        undecided = [one for one in here if one.state in ("open", "sealed", "quarantined")]
        numbers = {one.manifest.sequence for one in undecided if one.state != "open"}
        held = [one.manifest.sequence for one in undecided if one.reason == "gap"]
        heard = self._heard.get(flow)
        return Answer(200, _json({
            "flow": flow, "key_epoch": self._home.settings.key_epoch, "next_epoch": None,
            "state": "CURRENT" if sequence else "NOT_CONNECTED", "expected_by": "06:00", "as_of": None,
            "heard_at": heard.isoformat() if heard is not None else None, "last_sequence": sequence,
            "last_manifest_sha256": digest,
            "missing_nights": sorted(set(range(sequence + 1, max(held, default=0))) - numbers),
            "batches": [
                {"batch": one.id, "shadow": "", "sequence": one.manifest.sequence, "kind": one.manifest.kind,
                 "state": one.state, "manifest_sha256": one.sha256, "reason": one.reason}
                for one in sorted(undecided, key=lambda one: one.manifest.sequence)
            ],
            "terms": {
                "manifests": [
                    {"schema": SCHEMA, "media_type": MANIFEST_MEDIA_TYPE,
                     **dict(zip(("deprecated", "sunset"), map(_day, self._last_days() or (None, None)), strict=True))}
                ],
                "tables": TABLE_MEDIA_TYPE, "profile": self._home.profile, "sandbox": True,
                "chunk_bytes": [SMALLEST_CHUNK, LARGEST_CHUNK], "open_batches": OPEN_BATCHES,
                "hours_to_commit": OPEN_FOR // timedelta(hours=1),
            },
        }))  # fmt: skip

    # --- A batch ------------------------------------------------------------------------------------------------------

    def _open(self, flow: str, sent: Mapping[str, str], raw: bytes) -> Answer:
        _media(sent, MANIFEST_MEDIA_TYPE, "application/json")
        if len(raw) > LARGEST_BODY:
            raise _Refused(413, "too-large", "the body passes this route's limit")
        key = sent.get("idempotency-key", "")
        if not _KEY.fullmatch(key):
            raise _Refused(400, "malformed", "header Idempotency-Key: 8 to 128 letters, digits and .-_: are due")
        manifest = _manifest(raw)
        if manifest.agency != self._home.agency:
            raise _Refused(403, "not-allowed", "manifest.agency: this is not the agency of this home")
        if manifest.flow != flow:
            raise _Refused(400, "malformed", "manifest.flow: this is not the flow of the address")
        self._signed(sent.get("manifest-signature", ""), raw)
        digest = hashlib.sha256(raw).hexdigest()
        if (known := self._known(manifest, digest, key)) is not None:
            return Answer(201, known.first, {"Idempotency-Replayed": "true", **self._farewell()})
        if (days := self._last_days()) is not None and self._now() >= _midnight(days[1] + timedelta(days=1)):
            raise _Refused(422, "unknown-schema", "manifest.schema: its last day is over, as the sandbox was told")
        expires = _terms(self._home, manifest, self._now())
        if sum(one.state == "open" for one in self._batches.values()) >= OPEN_BATCHES:
            raise _Refused(429, "too-many", f"{OPEN_BATCHES} batches are open", Retry_After="30")
        batch = _Batch(secrets.token_hex(16), manifest, digest, key, b"", min(self._now() + OPEN_FOR, expires))
        said = {"batch": batch.id, "state": "open", "chunk_size": manifest.chunk_size, "missing": batch.missing()}
        batch.first = _json(said)
        self._batches[batch.id] = batch
        self._heard[flow] = self._now()
        return Answer(201, batch.first, self._farewell())

    def _last_days(self) -> tuple[date, date] | None:
        """Since when this form of manifest is on its way out, and its last day; None if it stays."""
        return (self._sunset - FAREWELL, self._sunset) if self._sunset is not None else None

    def _farewell(self) -> dict[str, str]:
        if (days := self._last_days()) is None:
            return {}
        over = _midnight(days[1] + timedelta(days=1))
        return {
            "Deprecation": f"@{int(_midnight(days[0]).timestamp())}",
            "Sunset": format_datetime(over.astimezone(UTC), usegmt=True),
        }

    def _signed(self, signature: str, raw: bytes) -> None:
        try:
            protected, payload, mac = signature.split(".")
            header = json.loads(_unb64(protected))
            due = self._home.public["signing"]
            if payload or header != {"alg": "Ed25519", "kid": due["kid"]}:
                raise ValueError("another header")
            signed = protected.encode() + b"." + base64.urlsafe_b64encode(raw).rstrip(b"=")
            Ed25519PublicKey.from_public_bytes(_unb64(due["public"])).verify(_unb64(mac), signed)
        except (ValueError, InvalidSignature):
            raise _Refused(401, "bad-signature", "header Manifest-Signature: not this agency's over these bytes",
                           WWW_Authenticate="Bearer") from None  # fmt: skip

    def _known(self, manifest: Manifest, digest: str, key: str) -> _Batch | None:
        every = list(self._batches.values())
        named = next((one for one in every if one.key == key), None)
        if named is not None and named.sha256 != digest:
            raise _Refused(409, "conflict", "header Idempotency-Key: it was used for another manifest")
        night = (manifest.flow, manifest.sequence)
        same = next(
            (one for one in every if (one.manifest.flow, one.manifest.sequence) == night and one.state != "rejected"),
            None,
        )
        if named is None and same is not None and same.sha256 != digest:
            raise _Refused(409, "conflict", "manifest.sequence: another batch of this flow has this number")
        return named or same

    def _on(
        self,
        batch: _Batch,
        method: str,
        what: str,
        query: Mapping[str, list[str]],
        sent: Mapping[str, str],
        body: bytes,
    ) -> Answer:
        if method == "PUT" and (chunk := _CHUNK.fullmatch(what)):
            return self._put(batch, chunk[1], int(chunk[2]), sent, body)
        match method, what:
            case "GET", "":
                return Answer(200, batch.told())
            case "POST", "commit":
                return self._commit(batch, body)
            case "GET", "receipt":
                return self._receipt(batch, (query.get("kind") or [""])[0])
            case "GET", "rejections":
                totals = [{"table": "items", "column": "code", "code": "unknown_code", "count": 1}]
                told = {"batch": batch.id, "state": batch.state, "reason": batch.reason,
                        "totals": totals if batch.state == "rejected" else []}  # fmt: skip
                return Answer(200, _json(told) + b"\n", {"Content-Type": "application/x-ndjson"})
            case "DELETE", "":
                if batch.state != "open" and batch.reason != "withdrawn":
                    raise _Refused(409, "wrong-state", "a committed batch can't be withdrawn")
                batch.state, batch.reason = "rejected", "withdrawn"
                return Answer(204)
        raise _Refused(404, "not-found", "the sandbox has the routes of submission, and no other")

    def _put(self, batch: _Batch, table: str, number: int, sent: Mapping[str, str], body: bytes) -> Answer:
        _media(sent, TABLE_MEDIA_TYPE, "application/octet-stream")
        if (table, number) not in {
            (name, at) for name in TABLES for at in range(len(batch.manifest.tables[name].chunks))
        }:
            raise _Refused(404, "not-found", "the manifest has no such chunk")
        entry = next(held for name, held in batch.manifest.tables.items() if name == table)
        place, due = f"{table} chunk {number}", entry.chunks[number]
        header = _DIGEST.fullmatch(sent.get("content-digest", ""))
        if header is None:
            raise _Refused(400, "malformed", f"{place}: header Content-Digest as sha-256=:...: is due (RFC 9530)")
        if base64.b64decode(header[1]).hex() != due:
            raise _Refused(422, "bad-digest", f"{place}: the header's digest is not the manifest's")
        if (table, number) in batch.chunks:
            return Answer(204)
        if batch.state != "open" or batch.expires_at <= self._now():
            raise _Refused(409, "wrong-state", f"{place}: the batch takes no more chunks")
        if hashlib.sha256(body).hexdigest() != due:
            raise _Refused(422, "bad-digest", f"{place}: the bytes are not those of the manifest's digest")
        batch.chunks[table, number] = b""  # that it came is enough
        return Answer(204)

    def _commit(self, batch: _Batch, body: bytes) -> Answer:
        try:
            said = json.loads(body)["manifest_sha256"]
        except (ValueError, KeyError, TypeError):
            raise _Refused(422, "invalid", "what was sent is not of the form that is due") from None
        if said != batch.sha256:
            raise _Refused(422, "bad-digest", "manifest_sha256: the batch was opened for another manifest")
        if batch.state == "open":
            if missing := batch.missing():
                named = ", ".join(f"{one['table']} chunk {one['chunk']}" for one in missing[:3])
                raise _Refused(409, "wrong-state", f"{len(missing)} chunks have not arrived: {named}")
            if batch.expires_at <= self._now():
                raise _Refused(422, "batch-refused", "manifest.expires_at: the batch was not committed in time")
            batch.state = "sealed"
        answer = Answer(202, batch.told())
        self._decide()
        return answer

    def _decide(self) -> None:
        """Decide what is sealed, in the order of nights; a delta waits for what it builds on."""
        for batch in sorted(self._batches.values(), key=lambda one: one.manifest.sequence):
            manifest = batch.manifest
            if batch.state != "sealed":
                continue
            last, digest = self._taken.get(manifest.flow, (0, ""))
            batch.reason = None
            if manifest.sequence < last:
                batch.state, batch.reason = "superseded", "older_night"
            elif manifest.kind == "delta" and manifest.sequence > last + 1:
                batch.reason = "gap"
            elif manifest.kind == "delta" and manifest.previous != digest:
                batch.state, batch.reason = "rejected", "previous_mismatch"
            else:
                batch.state = self._verdict
                batch.reason = {"rejected": "bad_rows", "quarantined": "unusual_size"}.get(self._verdict)
                if self._verdict == "accepted":
                    batch.counts = {table: entry.rows for table, entry in manifest.tables.items()}
                    self._taken[manifest.flow] = manifest.sequence, batch.sha256

    def _receipt(self, batch: _Batch, kind: str) -> Answer:
        decided = batch.state not in ("open", "sealed") and batch.reason != "withdrawn"
        which = kind or ("verdict" if decided else "received")
        if batch.state == "open" or (which == "verdict" and not decided):
            raise _Refused(404, "not-found", f"there is no receipt of kind {which} yet")
        state = batch.state if which == "verdict" else "sealed"
        event = hashlib.sha256(f"{batch.id} {which}".encode()).hexdigest()[:32]
        told = {"batch": batch.id, "kind": which, "state": state, "event_id": event, "sandbox": True}
        return Answer(200, _json(told))


def serve(sandbox: Sandbox, port: int, *, say: Callable[[str], None]) -> ThreadingHTTPServer:
    """A server on 127.0.0.1, for the caller to run (`serve_forever`) and to stop; `say` hears of each request."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _do(self) -> None:
            length = self.headers.get("Content-Length", "0")
            size = int(length) if length.isdigit() else LARGEST_CHUNK + 1
            if size > LARGEST_CHUNK:
                self.close_connection = True
                self._give(_problem(_Refused(413, "too-large", "the body passes this route's limit")))
                return
            self._give(sandbox.answer(self.command, self.path, dict(self.headers.items()), self.rfile.read(size)))

        do_GET = do_POST = do_PUT = do_DELETE = _do

        def _give(self, answer: Answer) -> None:
            if answer.status == 0:
                self.close_connection = True
                say(f"{self.command} {self.path}: the answer is lost, as it was told")
                return
            self.send_response(answer.status)
            for name, value in {"Content-Type": "application/json", **answer.headers}.items():
                self.send_header(name, value)
            if answer.status != 204:
                self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            say(f"{self.command} {self.path} {code}")

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), ZoneInfo("Europe/London"))


def _day(day: date | None) -> str | None:
    return None if day is None else day.isoformat()


def _manifest(raw: bytes) -> Manifest:
    try:
        manifest = Manifest.parse(raw)
        if manifest.canonical() != raw:
            raise BadManifest("its bytes are not the canonical form (RFC 8785)")
    except (BadManifest, rfc8785.CanonicalizationError) as wrong:
        raise _Refused(400, "malformed", f"manifest: {wrong}") from None
    return manifest


def _terms(home: Home, manifest: Manifest, at: datetime) -> datetime:
    """When the manifest ends.  Raises what of it a broker would not take."""
    for name, due in (
        ("profile", home.profile),
        ("key_epoch", home.settings.key_epoch),
        ("key_fingerprint", home.public["key_fingerprint"]),
        ("canaries", tuple(int(token) for token in home.public["canaries"])),
    ):
        if getattr(manifest, name) != due:
            raise _Refused(422, "batch-refused", f"manifest.{name}: this is not the one of public.json")
    if not SMALLEST_CHUNK <= manifest.chunk_size <= LARGEST_CHUNK:
        raise _Refused(413, "too-large", "manifest.chunk_size: 1 MiB to 64 MiB is due")
    for table, entry in manifest.tables.items():
        if len(entry.chunks) != max(1, -(-entry.size // manifest.chunk_size)):
            raise _Refused(400, "malformed", f"manifest.tables.{table}.chunks: their number does not fit the size")
    try:
        expires = datetime.fromisoformat(manifest.expires_at)
        ended = expires <= at
    except (ValueError, TypeError):
        raise _Refused(400, "malformed", "manifest.expires_at: an instant in UTC is due") from None
    if ended:
        raise _Refused(422, "batch-refused", "manifest.expires_at: the manifest has expired; sign a new one")
    return expires


def _media(sent: Mapping[str, str], *allowed: str) -> None:
    if sent.get("content-type", allowed[0]).partition(";")[0].strip().lower() not in allowed:
        raise _Refused(415, "unsupported-media", f"header Content-Type: {allowed[0]} is due")
    if sent.get("content-encoding", "identity") != "identity":
        raise _Refused(415, "unsupported-media", "bodies are taken as they are, without a content encoding")


def _problem(refused: _Refused) -> Answer:
    body = {"type": f"urn:safeguarding-broker:problem:{refused.slug}", "title": "The sandbox says no",
            "status": refused.status, "detail": str(refused)}  # fmt: skip
    headers = {name.replace("_", "-"): value for name, value in refused.headers.items()}
    return Answer(refused.status, _json(body), {**headers, "Content-Type": "application/problem+json"})


def _json(body: object) -> bytes:
    return json.dumps(body, separators=(",", ":"), sort_keys=True).encode()


def _unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
