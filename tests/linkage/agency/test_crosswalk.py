"""The crosswalk: from `record_ref` to case number and back, for eyes inside the agency alone."""

from pathlib import Path

import pytest

from linkage.agency import crosswalk
from linkage.agency.crosswalk import BadCrosswalk, Seen


def test_what_was_seen_keeps_its_first_day_and_gets_a_new_last_one(tmp_path: Path) -> None:
    with crosswalk.opened(tmp_path / "crosswalk.sqlite") as held:
        old = Seen(record_ref="aa", field="nhs_number", raw="943 476 5919", normal="9434765919")
        bad = Seen(record_ref="aa", field="upn", raw="X", normal=None)
        held.note("health", [("aa", "77")], [old, bad], at="2026-11-21T00:00:00Z")
        held.note("health", [("aa", "77"), ("bb", "78")], [old], at="2026-11-22T00:00:00Z")
    with crosswalk.opened(tmp_path / "crosswalk.sqlite") as held:
        assert held.local_id("aa") == ("health", "77")
        assert held.local_id("cc") is None
        assert held.records("77") == [
            {
                "flow": "health",
                "record_ref": "aa",
                "first_seen": "2026-11-21T00:00:00Z",
                "last_seen": "2026-11-22T00:00:00Z",
            }
        ]
        assert [(one["field"], one["valid"], one["last_seen"][8:10]) for one in held.identifiers("aa")] == [
            ("nhs_number", True, "22"), ("upn", False, "21"),
        ]  # fmt: skip
        assert held.counts() == {"health": 2}
    assert "9434765919" not in repr(old)


def test_a_crosswalk_that_others_can_read_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "crosswalk.sqlite"
    with crosswalk.opened(path):
        assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)
    with pytest.raises(BadCrosswalk, match="chmod 600"), crosswalk.opened(path):
        pass


def test_a_file_that_is_no_crosswalk_is_told(tmp_path: Path) -> None:
    path = tmp_path / "crosswalk.sqlite"
    path.write_bytes(b"not a database, but long enough to be looked at" * 100)
    path.chmod(0o600)
    with pytest.raises(BadCrosswalk), crosswalk.opened(path):
        pass
