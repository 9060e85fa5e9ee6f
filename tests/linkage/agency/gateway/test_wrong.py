"""Reporting a wrong person: what is asked, and that nothing is closed or kept where it was not taken."""

from __future__ import annotations

from pathlib import Path

import pytest

from agreements import VOCABULARY
from broker.considering import DECLINED
from broker.reviews.said import WHAT_IS_WRONG, WRONG_PERSON_HOW
from linkage.agency.gateway import words
from tests.linkage.agency.gateway.builders import (
    ANALYST,
    MANAGER,
    NOBODY_LISTENS,
    Running,
    a_gateway,
    a_kept_view,
    a_view,
    csrf_of,
)


@pytest.fixture
def running(tmp_path: Path) -> Running:
    return a_gateway(tmp_path)


def test_the_closed_lists_are_those_of_the_broker() -> None:
    assert tuple(words.WRONG) == WHAT_IS_WRONG
    assert words.WRONG_HOW.keys() == WRONG_PERSON_HOW.keys()
    assert words.DECLINED.keys() == DECLINED.keys()
    assert {code: one.label for code, one in VOCABULARY.emergencies.items()} == dict(words.EMERGENCIES)


@pytest.mark.parametrize(
    ("said", "faults"),
    [
        ({}, ["Choose what is wrong", "Choose how you know"]),
        ({"what": "somebody", "how": "a_guess"}, ["Choose what is wrong", "Choose how you know"]),
        ({"what": "organisation_record", "how": "knows_the_child"}, ["Choose whose record is of another person"]),
        (
            {"what": "organisation_record", "how": "knows_the_child", "organisation": "northshire-icb"},
            ["Choose whose record is of another person"],  # it shows nothing in this view
        ),
        ({"what": "whole_child"}, ["Choose how you know"]),
    ],
)
def test_what_is_missing_is_named_and_the_view_stays_open(
    running: Running, said: dict[str, str], faults: list[str]
) -> None:
    view = a_kept_view(running, a_view())
    client = running.client(ANALYST)
    page = f"/views/{view}/wrong-person"
    answer = client.post(page, data={"csrf": csrf_of(client.get(page).text), **said})
    assert answer.status_code == 422
    for fault in faults:
        assert fault in answer.text
    assert client.get(page).status_code == 200


def test_a_report_that_the_broker_did_not_take_closes_nothing(running: Running) -> None:
    assert running.app.state.gateway.settings.broker_url == NOBODY_LISTENS
    view = a_kept_view(running, a_view())
    client = running.client(ANALYST)
    page = f"/views/{view}/wrong-person"
    said = {"csrf": csrf_of(client.get(page).text), "what": "whole_child", "how": "knows_the_child"}
    assert client.post(page, data=said).status_code == 503
    assert client.get(page).status_code == 200


def test_a_view_of_a_colleague_can_not_be_reported(running: Running) -> None:
    view = a_kept_view(running, a_view(), person=MANAGER)
    assert running.client(ANALYST).get(f"/views/{view}/wrong-person").status_code == 404
