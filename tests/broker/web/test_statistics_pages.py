"""Planning statistics as pages: asked for by a planner, checked by information governance, read once approved."""

from __future__ import annotations

from tests.broker.test_statistics import PERIOD, TABLE, area, clock
from tests.builders import COUNCIL
from tests.builders_area import Area
from tests.builders_pages import Officer, text_of, written

__all__ = ["area", "clock"]


def test_a_planner_asks_an_officer_checks_and_only_then_the_planner_reads(area: Area) -> None:
    planner = Officer.of(area, "SERVICE_PLANNER", person="plan-1", organisation=COUNCIL)
    officer = Officer.of(area)
    assert "Nothing has been asked for yet." in planner.page("/statistics")
    assert "There is no such table" in text_of(planner.post("/statistics", period=PERIOD).text)
    assert 'name="table"' not in officer.get("/statistics").text  # who checks does not ask
    size = area.size()
    there = planner.done("/statistics", table=TABLE, period=PERIOD)
    assert written(area, size) == ["statistics.prepared"]
    assert "You see the figures once information governance has approved them." in planner.page(there)
    assert planner.get(f"{there}/csv").status_code == 409
    assert planner.post(f"{there}/check", word="agree").status_code == 403
    said = officer.page(there)
    assert "Children" in said and "Total" in said and "May it be published?" in said
    assert "Choose whether it may be published" in officer.post(f"{there}/check").text
    size = area.size()
    officer.done(f"{there}/check", word="agree")
    assert written(area, size) == ["statistics.approved"]
    size = area.size()
    assert "Total" in planner.page(there)
    assert planner.get(f"{there}/csv").headers["content-disposition"].endswith('.csv"')
    assert written(area, size) == ["statistics.disclosed"] * 2
    assert "Approved" in planner.page("/statistics")


def test_what_is_not_approved_says_why_and_another_organisation_s_is_not_there(area: Area) -> None:
    planner = Officer.of(area, "SERVICE_PLANNER", person="plan-1", organisation=COUNCIL)
    other = Officer.of(area, "SERVICE_PLANNER", person="plan-2", organisation="northshire-icb")
    there = planner.done("/statistics", table=TABLE, period=PERIOD)
    assert other.get(there).status_code == 404
    Officer.of(area).done(f"{there}/check", word="figures_wrong")
    said = planner.page(there)
    assert "Not approved: The figures can't be right" in said
    assert "Total" not in said
