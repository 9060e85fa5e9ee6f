"""The public page: who shares what with whom, for what and for how long, from the agreements in force and nothing else.

Nobody signs in to read it, so it tells of agreements, which are made to be told, and two counts of a quarter that is
over, each rounded and none below ten: whoever looks twice learns nothing of a day, and nothing of a child.
"""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from broker import publishing
from broker.dependencies import BrokerDep, NowDep
from broker.web.pages import PageRoute, ReaderDep, page

router = APIRouter(prefix="/transparency", route_class=PageRoute, include_in_schema=False)


@router.get("")
def transparency(request: Request, reader: ReaderDep, broker: BrokerDep, now: NowDep) -> Response:
    """What the partnership shares, in the words that were signed."""
    with broker.store.reading() as reading:
        shown = publishing.published(reading, broker.parts, at=now)
    return page(request, "transparency.html", reader, shown=shown)


@router.get("/children")
def children(request: Request, reader: ReaderDep) -> Response:
    """The same for a child to read."""
    return page(request, "transparency_children.html", reader)
