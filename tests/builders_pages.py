"""People signed in at the broker's own pages, without a browser: what they open, and what they post from it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from broker import clock, signin
from broker.store.log import EventRow
from tests.builders_area import Area


@dataclass(frozen=True)
class Officer:
    """Somebody signed in at the broker, whose browser takes no redirect by itself."""

    area: Area
    cookie: str
    csrf: str

    @classmethod
    def of(cls, area: Area, role: str = "IG_OFFICER", person: str = "ig-1", organisation: str = "") -> Officer:
        broker = area.broker
        cookie, session = signin.start(
            broker.store, broker.settings, person=person, role=role, organisation=organisation, method="demo",
            at=clock.now(),
        )  # fmt: skip
        return cls(area, cookie, session.csrf)

    def get(self, path: str) -> Any:
        return self.area.http.get(path, headers=self._headers(), follow_redirects=False)

    def post(self, path: str, **form: str) -> Any:
        return self.area.http.post(
            path, data={"csrf": self.csrf, **form}, headers=self._headers(), follow_redirects=False
        )

    def page(self, path: str) -> str:
        """A page that is there, as text."""
        answer = self.get(path)
        assert answer.status_code == 200, (answer.status_code, answer.text[-2000:])
        return text_of(answer.text)

    def done(self, path: str, **form: str) -> str:
        """Where a form that was taken leads."""
        answer = self.post(path, **form)
        assert answer.status_code == 303, (answer.status_code, text_of(answer.text)[-2000:])
        return str(answer.headers["location"])

    def _headers(self) -> dict[str, str]:
        return {
            "Cookie": f"{signin.COOKIE}={self.cookie}", "Origin": "null", "Sec-Fetch-Site": "same-origin",
        }  # fmt: skip


def text_of(html: str) -> str:
    """What a page says, tags taken out."""
    body = re.sub(r"(?s)<(script|style|head)\b.*?</\1>", " ", html)
    plain = re.sub(r"<[^>]+>", " ", body).replace("&#39;", "'").replace("&amp;", "&").replace("&quot;", '"')
    return re.sub(r"\s+", " ", plain)


def written(area: Area, after: int) -> list[str]:
    """Types of the events from a size of the log on, in its order."""
    area.size()
    with area.broker.store.reading() as reading:
        return [row.type for row in reading.all(EventRow, order=["seq"]) if row.seq >= after]
