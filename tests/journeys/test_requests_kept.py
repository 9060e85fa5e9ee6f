"""What a gateway asks is in its journal and its receipt kept, so that `auditor receipts` finds the one that is missing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from audit.cli import auditor
from linkage.agency import client
from linkage.agency import clock as agency_clock
from linkage.agency.gateway.broker_client import BrokerClient, BrokerRefused
from linkage.agency.journal import Journal
from linkage.agency.log import copy_log
from tests.broker.platform import BASE_URL
from tests.builders import COUNCIL
from tests.builders_area import MORNING, Area, Asker, the_time
from tests.builders_families import ROBIN, a_linked_area
from tests.builders_signer import policy_text


@pytest.fixture(scope="module")
def area(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Area]:
    with the_time(MORNING):
        made = a_linked_area(tmp_path_factory.mktemp("asked") / "northshire")
        yield made
        made.close()


def journalled(area: Area, folder: Path) -> Asker:
    """An analyst at the council's gateway, which keeps a journal in `folder`."""
    asker, home = area.asker(), area.home(COUNCIL)
    broker = BrokerClient(
        BASE_URL, agency=COUNCIL, key=client.client_jwk(home), kid=home.client_kid,
        token=client.Tokens(home, area.http, now=agency_clock.now, broker=BASE_URL), now=agency_clock.now,
        http=area.http, journal=Journal(folder, now=agency_clock.now),
    )  # fmt: skip
    return Asker(asker.encoder, broker, asker.actor)


def reconciled(area: Area, folder: Path) -> Result:
    shard = area.broker.trail.origin.rpartition("/")[2]

    def fetch(path: str) -> bytes:
        return bytes(area.http.get(f"/audit/log/{shard}/{path}").raise_for_status().content)

    copy_log(fetch, folder / "log", ask=lambda _: None)
    (folder / "policy").write_text(policy_text(area.broker.store))
    given = ["receipts", "--receipts", folder / "receipts", "--log", folder / "log", "--policy", folder / "policy"]
    more = ["--requests", folder / "requests.jsonl", "--evidence", folder / "evidence", "--json"]
    return CliRunner().invoke(auditor, [str(each) for each in (*given, *more)])


def test_each_request_of_a_person_has_its_receipt_and_the_lost_one_is_found(area: Area, tmp_path: Path) -> None:
    analyst = journalled(area, tmp_path)
    answer = analyst.search(ROBIN.typed(), case="R1")
    analyst.open(answer)
    with pytest.raises(BrokerRefused):
        analyst.broker.search({"purpose": "NONSENSE"}, analyst.actor)
    found = reconciled(area, tmp_path)
    assert found.exit_code == 0, found.output
    told = json.loads(found.output)
    assert (told["receipts"], told["requests"], told["unanswered"]) == (2, 3, [])
    written = [path for path in tmp_path.rglob("*") if path.is_file() and "log" not in path.relative_to(tmp_path).parts]
    for typed in (ROBIN.given, ROBIN.family, ROBIN.nhs, ROBIN.postcode):
        assert not any(typed.encode() in path.read_bytes() for path in written)

    (tmp_path / "receipts" / "asked" / f"{answer['receipt']['event_id']}.json").unlink()
    lost = reconciled(area, tmp_path)
    assert lost.exit_code == 1
    assert "answered, and no receipt was kept: POST /v1/searches" in json.loads(lost.output)["finding"]
