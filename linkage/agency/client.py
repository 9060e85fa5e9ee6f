"""An agency's calls to the broker: a batch in, chunk by chunk, and its receipts back.

Every step may be repeated: the batch is opened under a key that is made of its own digest, chunks have their places,
and what was sealed stays sealed.  So a submission that broke off is simply run again.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import httpx2
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from joserfc import jwt
from joserfc.jwk import ECKey

from linkage.agency.journal import Journal
from linkage.agency.keys import read_secret
from linkage.agency.settings import BadHome, Home, write_whole
from linkage.records import MANIFEST_MEDIA_TYPE, TABLE_MEDIA_TYPE, TABLES, BadManifest, Manifest, Table

ASSERTION_SECONDS: Final = 60
TOKEN_MARGIN: Final = 30  # seconds before its end at which a token is replaced
TRY_AGAIN: Final = frozenset({429, 502, 503, 504})
LONGEST_WAIT: Final = 60.0
ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

DECIDED: Final = frozenset({"accepted", "linked", "superseded", "rejected", "quarantined"})
TAKEN: Final = frozenset({"accepted", "linked"})


class Unreachable(Exception):
    """The broker could not be reached, or could not say: nothing is proved, and all may be tried again."""


class Refused(Exception):
    """The broker said no, in its own words, which name nobody."""

    def __init__(self, status: int, title: str, detail: str) -> None:
        super().__init__(f"the broker answered {status}: {title}{f': {detail}' if detail else ''}")
        self.status = status


class BadBatch(ValueError):
    """A folder does not hold a batch as it was encoded; the message names the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """Where a batch stands at the broker."""

    batch: str
    flow: str
    sequence: int
    state: str
    counts: Mapping[str, int]
    receipt: Path | None
    shadow: str = ""  # the epoch of the linkage key that it is of, if that is not in use yet

    def summary(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        return {
            "batch": self.batch, "flow": self.flow, "sequence": self.sequence, "state": self.state,
            "counts": dict(self.counts), "shadow": self.shadow or None,
            "receipt": None if self.receipt is None else str(self.receipt),
        }  # fmt: skip


class Tokens:
    """Machine tokens of one agency: call it for one that is valid now.

    Signs a fresh assertion (RFC 7523, ES256, one minute) with the home's client key whenever the last token runs out.
    """

    def __init__(
        self, home: Home, http: httpx2.Client, *, now: Callable[[], datetime], broker: str | None = None
    ) -> None:
        self._home = home
        self._http = http
        self._now = now
        self._url = f"{(broker or home.settings.broker).rstrip('/')}/oauth2/token"
        self._token = ""
        self._ends = 0.0

    def __call__(self) -> str:
        """Raises Unreachable or Refused."""
        at = self._now().timestamp()
        if at >= self._ends - TOKEN_MARGIN:
            answer = self._ask(int(at))
            self._token = str(answer["access_token"])
            self._ends = at + float(answer["expires_in"])
        return self._token

    def forget(self) -> None:
        """The token was refused: get another one next time."""
        self._ends = 0.0

    def _ask(self, at: int) -> dict[str, Any]:
        try:
            response = self._http.post(
                self._url,
                data={
                    "grant_type": "client_credentials",
                    "client_assertion_type": ASSERTION_TYPE,
                    "client_assertion": self.assertion(at),
                },
            )
        except httpx2.HTTPError:
            raise Unreachable(f"the broker can't be reached at {self._url}") from None
        if response.status_code >= 500 or response.status_code == 429:
            raise Unreachable(f"the broker's token endpoint answered {response.status_code}; try again")
        body = _object(response)
        if response.status_code != 200:
            detail = str(body.get("error_description") or "is this agency enrolled, with the keys of this home?")
            raise Refused(response.status_code, str(body.get("error") or "no token"), detail)
        if not {"access_token", "expires_in"} <= body.keys():
            raise Unreachable("the broker's token endpoint gave no token")
        return body

    def assertion(self, at: int) -> str:
        """A single-use statement that this is the agency's client."""
        claims = {
            "iss": self._home.agency,
            "sub": self._home.agency,
            "aud": self._url,
            "jti": secrets.token_urlsafe(18),
            "iat": at,
            "exp": at + ASSERTION_SECONDS,
        }
        header = {"alg": "ES256", "typ": "JWT", "kid": self._home.client_kid}
        return jwt.encode(header, claims, client_jwk(self._home), algorithms=["ES256"])


def connection(home: Home, *, seconds: float) -> httpx2.Client:
    """What calls to the broker go over: the broker's certificate is always checked, ours shown if the home has one.

    Raises BadHome, which names the setting, or BadKey for a key that others can read.
    """
    tls, folder = home.settings.tls, home.folder
    try:
        context = ssl.create_default_context(cafile=folder / tls.authorities) if tls.authorities else None
    except OSError:  # as an SSLError is
        raise BadHome(f"tls.authorities: {tls.authorities} is no file of certificates in PEM") from None
    if tls.certificate is not None and tls.key is not None:
        read_secret(folder / tls.key)
        context = context or httpx2.create_ssl_context()
        try:
            context.load_cert_chain(folder / tls.certificate, folder / tls.key, password=b"")
        except OSError:
            wrong = f"{tls.certificate} and {tls.key} are no certificate and its key in PEM without a password"
            raise BadHome(f"tls.certificate: {wrong}") from None
    return httpx2.Client(timeout=seconds, follow_redirects=False, verify=context or True)


def client_jwk(home: Home) -> ECKey:
    """The home's client key as joserfc takes it."""
    pem = home.client_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return ECKey.import_key(pem)


class Broker:
    """The submission routes of one broker, as one agency.  Repeats what may be repeated, with growing pauses."""

    def __init__(
        self,
        home: Home,
        *,
        now: Callable[[], datetime],
        http: httpx2.Client | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._base = home.settings.broker.rstrip("/")
        self._attempts = home.settings.timeouts.attempts
        self._http = http or connection(home, seconds=home.settings.timeouts.seconds)
        self._sleep = sleep
        self._tokens = Tokens(home, self._http, now=now)
        self.journal = Journal(home.folder, now=now)
        self.sunset = ""  # from when on the broker takes manifests of this client's form no more, as it says it

    def open(self, flow: str, payload: bytes, signature: str) -> dict[str, Any]:
        """Open a batch, or find the one that was opened with the same manifest."""
        headers = {
            "Content-Type": MANIFEST_MEDIA_TYPE,
            "Idempotency-Key": hashlib.sha256(payload).hexdigest(),
            "Manifest-Signature": signature,
        }
        response = self._send("POST", f"/v1/flows/{flow}/batches", content=payload, headers=headers)
        self.sunset = response.headers.get("Sunset", "")
        return _object(response)

    def put(self, flow: str, batch: str, table: str, chunk: int, content: bytes) -> None:
        """Send one chunk with its digest (RFC 9530)."""
        digest = base64.b64encode(hashlib.sha256(content).digest()).decode("ascii")
        headers = {"Content-Type": TABLE_MEDIA_TYPE, "Content-Digest": f"sha-256=:{digest}:"}
        path = f"/v1/flows/{flow}/batches/{batch}/{table}/chunks/{chunk}"
        self._send("PUT", path, content=content, headers=headers)

    def standing(self, flow: str) -> dict[str, Any]:
        """How a flow stands at the broker: what it took last, what is on its way, its terms."""
        return _object(self._send("GET", f"/v1/flows/{flow}"))

    def heartbeat(self, flow: str) -> None:
        """Say that this client is alive, be there anything to send or not."""
        self._send("POST", f"/v1/flows/{flow}/heartbeat")

    def withdraw(self, flow: str, batch: str) -> None:
        """Take back a batch that was not committed."""
        self._send("DELETE", f"/v1/flows/{flow}/batches/{batch}")

    def status(self, flow: str, batch: str) -> dict[str, Any]:
        return _object(self._send("GET", f"/v1/flows/{flow}/batches/{batch}"))

    def commit(self, flow: str, batch: str, manifest_sha256: str) -> dict[str, Any]:
        content = json.dumps({"manifest_sha256": manifest_sha256}).encode()
        headers = {"Content-Type": "application/json"}
        path = f"/v1/flows/{flow}/batches/{batch}/commit"
        return _object(self._send("POST", path, content=content, headers=headers))

    def receipt(self, flow: str, batch: str, kind: str) -> dict[str, Any] | None:
        """A receipt, or None if there is none of this kind yet."""
        try:
            return _object(self._send("GET", f"/v1/flows/{flow}/batches/{batch}/receipt?kind={kind}"))
        except Refused as refused:
            if refused.status == 404:
                return None
            raise

    def rejections(self, flow: str, batch: str) -> list[dict[str, Any]]:
        """What is wrong with a rejected batch, by table, row and code."""
        response = self._send("GET", f"/v1/flows/{flow}/batches/{batch}/rejections")
        return [json.loads(line) for line in response.text.splitlines() if line.strip()]

    def log_file(self, shard: str, path: str) -> bytes:
        """A file of the public log's shard of one year."""
        return self._send("GET", f"/audit/log/{shard}/{path}").content

    def newest_shard(self) -> str:
        """The name of the shard that the log grows in now: its year, unless it was begun anew within one."""
        try:
            return str(_object(self._send("GET", "/audit/shards"))["shards"][-1]["shard"])  # the oldest stands first
        except (KeyError, IndexError, TypeError):
            raise Unreachable("the broker's list of its log's shards can't be read") from None

    def log_file_if_any(self, shard: str, path: str) -> bytes | None:
        """The same, or None if there is none of this name."""
        try:
            return self.log_file(shard, path)
        except Refused as refused:
            if refused.status == 404:
                return None
            raise

    def growth(self, shard: str, old: int, new: int) -> bytes:
        """The proof that the log of `new` leaves begins with that of `old`, a hash a line in base64."""
        return self._send("GET", f"/audit/consistency?old={old}&new={new}&shard={shard}").content

    def hand_in(self, note: bytes) -> dict[str, Any]:
        """Hand in a checkpoint with witnesses' lines: which were taken, and whether a quorum has signed it now."""
        headers = {"Content-Type": "text/plain; charset=utf-8"}
        return _object(self._send("POST", "/audit/cosignatures", content=note, headers=headers))

    def ledger(self, *, which: str, since: str | None = None, cursor: str | None = None) -> dict[str, Any]:
        """One page of who was shown what of this agency's records."""
        asked = {"which": which, "since": since, "cursor": cursor}
        query = httpx2.QueryParams({name: value for name, value in asked.items() if value is not None})
        return _object(self._send("GET", f"/v1/ledger?{query}"))

    def accesses(self, record_ref: str) -> dict[str, Any]:
        """The latest accesses of one of this agency's records."""
        return self._post("/v1/ledger/accesses", {"record_ref": record_ref})

    def recalls(self) -> dict[str, Any]:
        """Answers to this agency's people that are recalled."""
        return _object(self._send("GET", "/v1/ledger/recalls"))

    def have_read(self, *, notices: Sequence[str], recalls: Sequence[str]) -> dict[str, Any]:
        """Say that these have arrived."""
        return self._post("/v1/ledger/read", {"notices": list(notices), "recalls": list(recalls)})

    def _post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        headers = {"Content-Type": "application/json"}
        return _object(self._send("POST", path, content=json.dumps(body).encode(), headers=headers))

    def _send(
        self, method: str, path: str, *, content: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> httpx2.Response:
        problem, pause, renewed = "it did not answer", 0.0, False
        for attempt in range(self._attempts):
            if attempt:
                self._sleep(pause)
            pause = _pause(attempt)
            try:
                authorised = {**(headers or {}), "Authorization": f"Bearer {self._tokens()}"}
                response = self._http.request(method, self._base + path, content=content, headers=authorised)
            except (httpx2.HTTPError, Unreachable) as failure:
                problem = str(failure) if isinstance(failure, Unreachable) else type(failure).__name__
                continue
            if response.status_code == 401 and not renewed:
                renewed = True
                self._tokens.forget()
                continue
            if response.status_code in TRY_AGAIN:
                problem = f"it answered {response.status_code}"
                pause = max(pause, _retry_after(response))
                continue
            if response.status_code >= 500:
                raise Unreachable(f"the broker failed with {response.status_code}; nothing is known, try again")
            if response.status_code >= 400:
                raise _refusal(response)
            return response
        raise Unreachable(f"the broker at {self._base} could not be asked, {self._attempts} times: {problem}")


def submit(
    folder: Path,
    home: Home,
    broker: Broker,
    *,
    progress: Callable[[str, int, int], None] = lambda step, done, total: None,
) -> Submission:
    """Send a batch and keep the receipt of its arrival.  Run again, it goes on where it broke off.

    Nothing is sent unless every byte is what was signed.  A batch of the same night that was opened before and never
    committed, as when an upload broke off and the night was encoded anew, is withdrawn first.

    Raises BadBatch, Refused or Unreachable.
    """
    payload, signature, manifest = read_batch(folder)
    if manifest.key_epoch != home.settings.key_epoch:
        home = Home(home.folder, shadow=manifest.key_epoch)
    if manifest.agency != home.agency:
        raise BadBatch(f"{folder}: the batch is of {manifest.agency!r}, the home of {home.agency!r}")
    check_tables(folder, manifest)
    sha256 = hashlib.sha256(payload).hexdigest()
    _follows(home, broker, manifest, sha256)
    broker.journal.sent(sha256, f"POST /v1/flows/{manifest.flow}/batches")
    try:
        opened = _opened(broker, manifest, payload, signature, home.shadow)
    except Refused as refused:
        broker.journal.answered(sha256, refused.status)
        raise
    batch = str(opened["batch"])
    now = broker.status(manifest.flow, batch)  # what an earlier run has sent is not missing any more
    if now["state"] == "open":
        missing = now["missing"]
        for done, one in enumerate(missing):
            progress("chunks", done, len(missing))
            content = _chunk(folder, manifest, one["table"], int(one["chunk"]))
            broker.put(manifest.flow, batch, str(one["table"]), int(one["chunk"]), content)
        progress("chunks", len(missing), len(missing))
        now = broker.commit(manifest.flow, batch, sha256)
    kept = {
        "batch": batch, "flow": manifest.flow, "sequence": manifest.sequence, "manifest_sha256": sha256,
        "state": now["state"], **({"shadow": home.shadow} if home.shadow else {}),
    }  # fmt: skip
    received = broker.receipt(manifest.flow, batch, "received")
    if received is not None:
        kept["received"] = received
    _keep(home, batch, kept)
    if received is not None:
        broker.journal.answered(sha256, 200)
    home.remember(manifest.flow, pending={"batch": batch, "sequence": manifest.sequence, "manifest_sha256": sha256})
    return settle(home, broker, batch)


def _opened(broker: Broker, manifest: Manifest, payload: bytes, signature: str, shadow: str) -> dict[str, Any]:
    try:
        return broker.open(manifest.flow, payload, signature)
    except Refused as refused:
        if refused.status != 409 or not _make_way(broker, manifest, shadow):
            raise
    return broker.open(manifest.flow, payload, signature)


def _make_way(broker: Broker, manifest: Manifest, shadow: str) -> bool:
    """Withdraw what was opened under this night's number and never committed; whether there was such a batch."""
    left = [
        str(one["batch"])
        for one in broker.standing(manifest.flow)["batches"]
        if one["state"] == "open" and one["sequence"] == manifest.sequence and one.get("shadow", "") == shadow
    ]
    for batch in left:
        broker.withdraw(manifest.flow, batch)
    return bool(left)


def _follows(home: Home, broker: Broker, manifest: Manifest, sha256: str) -> None:
    """Ask for the verdict that an earlier batch of the flow may have by now.

    Raises BadBatch if a delta does not follow what is accepted then: it would be refused there.
    """
    pending = home.state(manifest.flow).get("pending") or {}
    if pending.get("manifest_sha256") != sha256 and pending.get("batch") in receipts(home):
        try:
            settle(home, broker, str(pending["batch"]))
        except Refused as refused:
            if refused.status != 404:  # the broker has no such batch any more: it will never be accepted
                raise
    accepted = home.state(manifest.flow)["manifest_sha256"]
    if manifest.kind == "delta" and accepted not in (manifest.previous, sha256):
        raise BadBatch("another batch of this flow was accepted since this delta was made; encode again")


def settle(home: Home, broker: Broker, batch: str) -> Submission:
    """Ask how a batch stands, and keep its verdict once there is one.  Raises BadBatch, Refused or Unreachable."""
    kept = receipts(home).get(batch)
    if kept is None:
        raise BadBatch(f"no receipt of batch {batch} is in {home.receipts}; submit it first")
    flow = str(kept["flow"])
    if (shadow := str(kept.get("shadow", ""))) != home.shadow:
        home = Home(home.folder, shadow=shadow)
    now = broker.status(flow, batch)
    kept["state"] = now["state"]
    if now["state"] in DECIDED and "verdict" not in kept:
        verdict = broker.receipt(flow, batch, "verdict")
        if verdict is not None:
            kept["verdict"] = verdict
    path = _keep(home, batch, kept)
    held = home.state(flow)
    if now["state"] in TAKEN and int(kept["sequence"]) > int(held["sequence"]):
        home.remember(flow, sequence=kept["sequence"], manifest_sha256=kept["manifest_sha256"], pending=None)
    elif now["state"] == "rejected" and (held.get("pending") or {}).get("batch") == batch:
        home.remember(flow, pending=None)  # its number is free again
    return Submission(
        batch=batch, flow=flow, sequence=int(kept["sequence"]), state=str(now["state"]),
        counts=now.get("counts") or {}, receipt=path, shadow=shadow,
    )  # fmt: skip


def wait(
    home: Home, broker: Broker, batch: str, *, seconds: float, sleep: Callable[[float], None] = time.sleep
) -> Submission:
    """Settle, again and again until there is a verdict or the time is over."""
    waited, pause = 0.0, 0.25
    submission = settle(home, broker, batch)
    while submission.state not in DECIDED and waited < seconds:
        sleep(pause)
        waited += pause
        pause = min(pause * 1.5, 5.0)
        submission = settle(home, broker, batch)
    return submission


def receipts(home: Home) -> dict[str, dict[str, Any]]:
    """Every receipt of the home, by batch."""
    found = {}
    for path in sorted(home.receipts.glob("*.json")):
        try:
            kept = json.loads(path.read_bytes())
            found[str(kept["batch"])] = kept
        except (OSError, ValueError, KeyError, TypeError):
            raise BadBatch(f"{path} is not a receipt; put it aside") from None
    return found


def read_batch(folder: Path) -> tuple[bytes, str, Manifest]:
    """Manifest bytes, signature and manifest of a folder.  Raises BadBatch."""
    try:
        payload = (folder / "manifest.json").read_bytes()
        signature = (folder / "manifest.jws").read_text(encoding="ascii").strip()
        manifest = Manifest.parse(payload)
        for name in TABLES:
            if (size := (folder / f"{name}.parquet").stat().st_size) != manifest.tables[name].size:
                raise BadBatch(f"{folder / name}.parquet has {size} bytes, not those that were signed; encode again")
    except OSError as problem:
        raise BadBatch(f"{problem.filename}: {problem.strerror}; `agency encode` makes a batch") from None
    except (BadManifest, UnicodeDecodeError) as problem:
        raise BadBatch(f"{folder / 'manifest.json'}: {problem}; encode again") from None
    return payload, signature, manifest


def check_tables(folder: Path, manifest: Manifest) -> None:
    """Return if every table's bytes are those that were signed.  Raises BadBatch."""
    for name in TABLES:
        for number in range(len(manifest.tables[name].chunks)):
            _chunk(folder, manifest, name, number)


def _chunk(folder: Path, manifest: Manifest, table: Table, number: int) -> bytes:
    """One chunk of a table.  Raises BadBatch if its bytes are not those that were signed."""
    if table not in TABLES or not 0 <= number < len(manifest.tables[table].chunks):
        raise Unreachable("the broker asks for a chunk that this batch does not have")
    entry = manifest.tables[table]
    path = folder / f"{table}.parquet"
    try:
        with path.open("rb") as file:
            file.seek(number * manifest.chunk_size)
            content = file.read(manifest.chunk_size)
    except OSError as problem:
        raise BadBatch(f"{path}: {problem.strerror}; `agency encode` makes a batch") from None
    if hashlib.sha256(content).hexdigest() != entry.chunks[number]:
        raise BadBatch(f"{path}: it has changed since it was signed; encode again")
    return content


def _keep(home: Home, batch: str, kept: Mapping[str, Any]) -> Path:
    if not batch or not all(sign.isalnum() or sign in "-_" for sign in batch):
        raise Unreachable("the broker named the batch in a form that is not known here")
    path = home.receipts / f"{batch}.json"
    write_whole(path, json.dumps(kept, indent=2, sort_keys=True).encode() + b"\n")
    return path


def _object(response: httpx2.Response) -> dict[str, Any]:
    try:
        body = response.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise Unreachable(f"the broker's answer ({response.status_code}) can't be read: is the address right?")
    return body


def _refusal(response: httpx2.Response) -> Refused:
    try:
        body = response.json()
    except ValueError:
        body = {}
    if not isinstance(body, dict):
        body = {}
    return Refused(response.status_code, str(body.get("title") or "refused"), str(body.get("detail") or ""))


def _retry_after(response: httpx2.Response) -> float:
    text = response.headers.get("Retry-After", "")
    return min(float(text), LONGEST_WAIT) if text.isascii() and text.isdigit() else 0.0


def _pause(attempt: int) -> float:
    """Half a second, doubled each time, with up to as much again by chance, so that agencies don't come in step."""
    base = float(min(0.5 * 2**attempt, LONGEST_WAIT / 2))
    return base + base * secrets.randbelow(1000) / 1000
