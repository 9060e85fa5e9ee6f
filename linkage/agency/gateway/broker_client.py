"""The gateway's calls to the broker: as its organisation, and naming the person in a statement it signs."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeVar
from urllib.parse import urlencode, urlsplit

import httpx2
from joserfc import jwt
from joserfc.jwk import ECKey
from pydantic import ValidationError

from linkage.agency.client import Refused, Unreachable
from linkage.agency.gateway.answers import Answer, FamilyView, SearchAnswer
from linkage.agency.journal import Journal

ASSERTION_SECONDS: Final = 45
TIMEOUT_SECONDS: Final = 15.0

A = TypeVar("A", bound=Answer)


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Who asks: an opaque person id, the role they act in, and their session."""

    person: str
    role: str
    sid: str


class BrokerUnavailable(Exception):
    """The broker could not be reached, or failed.  Nothing was shown."""


class BrokerRefused(Exception):
    """The broker did not take the request.  `code` and `detail` are the broker's own words and name nobody."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(f"the broker answered {status}: {code}")
        self.status = status
        self.code = code
        self.detail = detail


class BrokerClient:
    """All that people ask, each with the person's assertion.  `token` gives a valid machine token.

    With a `journal`, each is in it before it is sent, and its receipt is kept.
    """

    def __init__(
        self,
        base_url: str,
        *,
        agency: str,
        key: ECKey,
        kid: str,
        token: Callable[[], str],
        now: Callable[[], datetime],
        http: httpx2.Client | None = None,
        journal: Journal | None = None,
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._prefix = urlsplit(self._base_url).path
        self._agency = agency
        self._key = key
        self._kid = kid
        self._token = token
        self._now = now
        self._http = http or httpx2.Client(timeout=TIMEOUT_SECONDS, follow_redirects=False)
        self._journal = journal

    def search(self, body: dict[str, Any], actor: Actor) -> tuple[SearchAnswer, dict[str, Any]]:
        """The answer to an encoded search, read and as it came.  Raises BrokerUnavailable or BrokerRefused."""
        answer = self._post("/v1/searches", body, actor)
        return _read(SearchAnswer, answer), answer

    def disclose(self, search: str, candidate: str, actor: Actor) -> tuple[FamilyView, dict[str, Any]]:
        """The family view of one candidate, decided and recorded anew.  Raises BrokerUnavailable or BrokerRefused."""
        answer = self._post("/v1/disclosures", {"search": search, "candidate": candidate}, actor)
        return _read(FamilyView, answer), answer

    def break_glass(
        self, search: str, candidate: str, reason: str, words: str, actor: Actor
    ) -> tuple[FamilyView, dict[str, Any]]:
        """The same in immediate danger; `words` name nobody.  Raises BrokerUnavailable or BrokerRefused."""
        body = {"search": search, "candidate": candidate, "reason": reason, "words": words}
        answer = self._post("/v1/emergencies", body, actor)
        return _read(FamilyView, answer), answer

    def end_emergency(self, emergency: str, actor: Actor) -> dict[str, Any]:
        """Say that an emergency is over.  Raises BrokerUnavailable or BrokerRefused."""
        return self._ask("POST", f"/v1/emergencies/{emergency}/end", b"", actor)

    def set_threshold(self, body: dict[str, Any], actor: Actor) -> dict[str, Any]:
        """Record a threshold, or be told why not.  Raises BrokerUnavailable or BrokerRefused."""
        return self._post("/v1/thresholds", body, actor)

    def wrong_person(self, body: dict[str, Any], actor: Actor) -> dict[str, Any]:
        """Say that a view mixes two people up.  Raises BrokerUnavailable or BrokerRefused."""
        return self._post("/v1/wrong-person", body, actor)

    def considerations(self, actor: Actor, *, state: str = "open", cursor: str | None = None) -> dict[str, Any]:
        """What this organisation is to consider, or has decided, a page.  Raises BrokerUnavailable or BrokerRefused."""
        return self._ask("GET", _asking("/v1/considerations", state=state, cursor=cursor), b"", actor)

    def ledger(self, actor: Actor, *, which: str = "all", cursor: str | None = None) -> dict[str, Any]:
        """A page of who was shown what of this organisation's records.  Raises BrokerUnavailable or BrokerRefused."""
        return self._ask("GET", _asking("/v1/ledger", which=which, cursor=cursor), b"", actor)

    def accesses(self, record_ref: str, actor: Actor) -> dict[str, Any]:
        """Who was shown one of its records last.  Raises BrokerUnavailable or BrokerRefused."""
        return self._post("/v1/ledger/accesses", {"record_ref": record_ref}, actor)

    def standing(self, flow: str) -> dict[str, Any]:
        """How a flow of this organisation's own stands.  Raises BrokerUnavailable or BrokerRefused."""
        return self._call("GET", f"/v1/flows/{flow}", None, {})

    def consider(self, consideration: str, decision: str, reason: str | None, actor: Actor) -> dict[str, Any]:
        """Say that one was `disclosed`, or `declined` and why.  Raises BrokerUnavailable or BrokerRefused."""
        return self._post(
            f"/v1/considerations/{consideration}/decision", {"decision": decision, "reason": reason}, actor
        )

    def in_force(self) -> str:
        """A mark of the agreements, restrictions and agencies in force now: where it is another than before an answer,
        the answer is to be asked for again.  Raises BrokerUnavailable or BrokerRefused."""
        mark = self._call("GET", "/v1/in-force", None, {}).get("mark")
        if not isinstance(mark, str):
            raise BrokerUnavailable("the broker's answer could not be read")
        return mark

    def _post(self, path: str, body: dict[str, Any], actor: Actor) -> dict[str, Any]:
        return self._ask("POST", path, json.dumps(body, separators=(",", ":")).encode(), actor)

    def _ask(self, method: str, path: str, content: bytes, actor: Actor) -> dict[str, Any]:
        """What a person asks: under their assertion, and in the journal by it."""
        assertion = self.assertion(actor, method, self._prefix + path, content)
        headers = {"Gateway-Assertion": assertion} | ({"Content-Type": "application/json"} if content else {})
        if self._journal is None:
            return self._call(method, path, content or None, headers)
        request = hashlib.sha256(assertion.encode()).hexdigest()
        self._journal.sent(request, f"{method} {path}")
        try:
            answer = self._call(method, path, content or None, headers)
        except BrokerRefused as refused:
            self._journal.answered(request, refused.status)
            raise
        receipt = answer.get("receipt")
        self._journal.answered(request, 200, receipt if isinstance(receipt, dict) else None)
        return answer

    def _call(self, method: str, path: str, content: bytes | None, headers: dict[str, str]) -> dict[str, Any]:
        try:
            response = self._http.request(
                method,
                self._base_url + path,
                content=content,
                headers={"Authorization": f"Bearer {self._token()}", **headers},
            )
        except (httpx2.HTTPError, Unreachable, Refused):
            raise BrokerUnavailable("the broker could not be reached") from None
        if response.status_code >= 500:
            raise BrokerUnavailable(f"the broker answered {response.status_code}")
        try:
            answer = response.json()
        except ValueError:
            raise BrokerUnavailable("the broker's answer could not be read") from None
        if not isinstance(answer, dict):
            raise BrokerUnavailable("the broker's answer could not be read")
        if response.status_code >= 400:
            kind = str(answer.get("type") or "").rsplit(":", 1)[-1]
            raise BrokerRefused(response.status_code, kind, str(answer.get("detail") or answer.get("title") or ""))
        return answer

    def assertion(self, actor: Actor, method: str, path: str, body: bytes) -> str:
        """The signed statement of who asks what: ES256, single use, valid for less than a minute, bound to the body."""
        issued = int(self._now().timestamp())
        claims = {
            "iss": self._agency,
            "aud": self._base_url,
            "sub": actor.person,
            "role": actor.role,
            "sid": actor.sid,
            "jti": secrets.token_urlsafe(18),
            "iat": issued,
            "exp": issued + ASSERTION_SECONDS,
            "htm": method,
            "path": path,
            "body_sha256": hashlib.sha256(body).hexdigest(),
        }
        header = {"alg": "ES256", "typ": "gateway-assertion+jwt", "kid": self._kid}
        return jwt.encode(header, claims, self._key, algorithms=["ES256"])


def _asking(path: str, **asked: str | None) -> str:
    return f"{path}?{urlencode({name: value for name, value in asked.items() if value is not None})}"


def _read(kind: type[A], answer: dict[str, Any]) -> A:
    try:
        return kind.model_validate(answer)
    except ValidationError:
        raise BrokerUnavailable("the broker's answer could not be read") from None
