"""What one running gateway is made of, and what every page needs: templates, times, and who is signed in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.responses import HTMLResponse
from jinja2 import ChoiceLoader, Environment, FileSystemLoader, PackageLoader, PrefixLoader

from linkage.agency.gateway import clocks, words
from linkage.agency.gateway.answers import Feed
from linkage.agency.gateway.broker_client import BrokerClient
from linkage.agency.gateway.encoder import SearchEncoder
from linkage.agency.gateway.sessions import Session, Sessions
from linkage.agency.gateway.settings import GatewaySettings
from linkage.agency.gateway.store import Box, GatewayStore

HERE = Path(__file__).resolve().parent
STATIC = HERE / "static"


@cache
def environment() -> Environment:
    """Jinja with GOV.UK's macros and our filters; everything is escaped."""
    env = Environment(
        loader=ChoiceLoader(
            [
                FileSystemLoader(HERE / "templates"),
                PrefixLoader({"govuk_frontend_jinja": PackageLoader("govuk_frontend_jinja")}),
            ]
        ),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters |= {
        "day": words.day,
        "month": words.month,
        "london_day": words.london_day,
        "london_time": words.london_time,
        "telephone": words.telephone,
        "sector": words.sector,
        "plain": words.plain,
        "kind_of": words.kind_of,
        "lower_first": words.lower_first,
    }
    env.globals |= {"words": words, "choices": choices}
    return env


def choices(labels: Mapping[str, str]) -> list[dict[str, str]]:
    """Codes and labels as GOV.UK's radios and selects take them."""
    return [{"value": code, "text": label} for code, label in labels.items()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """The parts of one running gateway."""

    settings: GatewaySettings
    store: GatewayStore
    sessions: Sessions
    encoder: SearchEncoder
    broker: BrokerClient
    pages: Environment
    now: Callable[[], datetime]

    def names(self, feeds: Iterable[Feed] = ()) -> Callable[[str | None], str]:
        """How people call an organisation: as the settings say, else as the broker's answer does."""
        known = {feed.organisation: feed.name for feed in feeds if feed.name} | self.settings.organisations
        return lambda agency: known.get(agency, words.plain(agency)) if agency else ""

    def clock(self, contact: Box) -> clocks.Clock | None:
        """The clock of a contact now, where somebody has set it."""
        return clocks.of(contact.content, self.settings.clocks, now=self.now())

    def page(
        self, request: Request, template: str, session: Session | None, *, status: int = 200, **context: Any
    ) -> HTMLResponse:
        """A page, with everything that all of them carry."""
        html = self.pages.get_template(template).render(
            {"organisation": self.names(), "clock_of": self.clock} | context,
            cspNonce=request.state.nonce,
            assetPath="/static",
            settings=self.settings,
            session=session,
            now=self.now(),
            path=request.url.path,
        )
        return HTMLResponse(html, status_code=status)


def _gateway(request: Request) -> Gateway:
    gateway: Gateway = request.app.state.gateway
    return gateway


GatewayDep = Annotated[Gateway, Depends(_gateway)]
"""The running gateway."""
