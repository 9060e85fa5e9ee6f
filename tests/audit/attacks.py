"""What may be done to the log, who finds it, how they say so, and which tests show it; rendered as `ATTACKS.md`.

The numbers are those of the list of attacks and faults that the log was built against.  `python -m tests.audit.attacks`
prints the page; tests/audit/test_attack_list.py keeps it current, and every test it names in being.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Attack:
    """One of the list.  `found`: by whom, and with which exit code or answer; `shown`: `file::test`, from tests/."""

    number: int
    what: str
    found: str
    shown: tuple[str, ...]


def _of(number: int, what: str, found: str, *shown: str) -> Attack:
    return Attack(number, what, found, shown)


_A: Final = "audit/test_attacks.py"
_W: Final = "audit/test_witnessing.py"
_T: Final = "broker/test_trail.py"
_S: Final = "broker/test_shards.py"
_EDITED: Final = f"{_A}::test_whoever_holds_a_receipt_finds_that_it_was_edited"
_BUNDLE: Final = f"{_A}::test_fsck_finds_entries_that_were_changed_under_intact_tiles_17"
_CUT: Final = f"{_S}::test_a_log_that_was_cut_is_refused_by_the_signer_and_found_by_the_auditor"

ATTACKS: Final = (
    _of(1, "edit a body", "`auditor inclusion`, `receipts`: 1; a body moved in the database is not opened", _EDITED,
        f"{_T}::test_bodies_can_not_be_swapped_between_events"),
    _of(2, "edit a salt", "`auditor inclusion`, `receipts`: 1", _EDITED,
        "audit/test_receipts.py::test_no_receipt_survives_one_changed_character_property"),
    _of(3, "edit a leaf", "`auditor fsck`: 1; `inclusion` of the entry that was edited: 1", _BUNDLE),
    _of(4, "delete a middle row", "`auditor fsck`: 1; `inclusion` of the entry that was edited: 1", _BUNDLE),
    _of(5, "swap two rows", "`auditor fsck`: 1; `inclusion` of the entry that was edited: 1", _BUNDLE),
    _of(6, "insert a row between", "`auditor fsck`: 1; `inclusion` of the entry that was edited: 1", _BUNDLE),
    _of(7, "cut the tail, the head rewritten", "the signer refuses; whoever kept a checkpoint: `consistency`, `fsck "
        "--state` 1; `agency log fetch` keeps the checkpoint of before",
        f"{_A}::test_a_tail_cut_off_with_a_stolen_key_is_found_by_whoever_kept_a_checkpoint_7",
        f"{_A}::test_without_the_key_the_signer_signs_none_of_it_7_8", _CUT,
        "linkage/agency/test_log.py::test_the_checkpoint_of_before_is_kept_when_the_log_shrinks_or_forks_and_shows_it_7_9"),
    _of(8, "cut, then regrow past the kept size", "the signer refuses; `consistency`, `fsck --state` 1, both notes kept",
        f"{_A}::test_a_log_cut_off_and_regrown_past_the_kept_size_is_found_8",
        f"{_A}::test_without_the_key_the_signer_signs_none_of_it_7_8", _CUT),
    _of(9, "a fork shown to one agency only", "`auditor receipts`, `auditor gossip`: 1, both notes kept",
        f"{_A}::test_a_fork_shown_to_one_agency_is_found_when_its_receipt_meets_anothers_folder_9",
        f"{_W}::test_a_split_view_is_found_when_two_compare_and_both_notes_are_kept_9",
        f"{_W}::test_a_split_view_shows_in_the_receipts_of_whoever_was_shown_the_other_one_9"),
    _of(10, "a fork of one size, before a witness", "the witness: 422, and it keeps note and request; `consistency` 1; "
        "the broker keeps the note beside its own and logs witness.conflict",
        "audit/test_witness.py::test_a_fork_is_kept_whole_with_the_request_that_showed_it_10",
        f"{_A}::test_two_trees_of_one_size_are_found_and_both_notes_kept_10",
        "broker/test_witnesses.py::test_a_note_of_the_logs_own_key_over_another_tree_is_kept_with_ours_and_told_10",
        "linkage/agency/test_log.py::test_a_witness_that_saw_another_tree_is_a_finding_and_all_of_it_is_kept_10"),
    _of(11, "rewrite under a new log key", "every command: 1",
        f"{_A}::test_a_log_under_a_key_the_policy_does_not_name_is_found_11"),
    _of(12, "change the key without key.rotated; sign on with the old key after it", "every command: 1 (3 where the folder "
        "has no history); under the old key alone 4, beside its hand-over 1",
        "audit/test_rotation.py::test_a_log_that_changes_its_key_without_an_entry_is_found_12",
        "audit/test_rotation.py::test_a_key_that_was_rotated_away_vouches_for_nothing_alone_12",
        "audit/test_rotation.py::test_after_its_hand_over_the_old_key_alone_is_a_finding_whatever_the_policy_says",
        f"{_S}::test_a_key_changes_hands_in_the_open_and_auditors_follow_12"),
    _of(13, "another tree under the stolen log key", "no quorum: 5; beside what was witnessed: 1; a "
        "receipt of it, once the log was frozen: 1",
        f"{_A}::test_a_stolen_log_key_alone_makes_no_quorum_13",
        f"{_W}::test_a_stolen_log_key_that_forks_before_what_was_witnessed_is_found_beside_it_13",
        f"{_S}::test_a_compromised_key_freezes_the_shard_at_a_checkpoint_that_a_quorum_signed_and_no_other",
        f"{_S}::test_after_a_compromise_receipts_of_before_hold_by_what_the_new_log_cites_and_later_ones_prove_nothing_13"),
    _of(14, "a witness line of another checkpoint", "counts for nothing: 5; the broker takes no such line",
        f"{_A}::test_a_witness_line_of_another_checkpoint_or_with_another_time_counts_for_nothing_14_15",
        "broker/test_witnesses.py::test_a_line_copied_to_another_checkpoint_or_with_another_time_counts_for_nothing_14_15"),
    _of(15, "a cosignature with its time edited", "counts for nothing: 5; the broker takes no such line",
        f"{_A}::test_a_witness_line_of_another_checkpoint_or_with_another_time_counts_for_nothing_14_15",
        "broker/test_witnesses.py::test_a_line_copied_to_another_checkpoint_or_with_another_time_counts_for_nothing_14_15"),
    _of(16, "signature lines twice, or of unknown keys", "passed over; one witness twice is one: 5",
        f"{_A}::test_one_witness_signing_twice_is_one_witness_and_strangers_are_none_16",
        "audit/test_checkpoint.py::test_a_line_of_an_unknown_key_or_a_second_line_of_a_known_one_is_ignored"),
    _of(17, "a changed tile over intact bundles, and the reverse", "`auditor fsck`: 1, which names the tile",
        f"{_A}::test_fsck_names_the_tile_that_was_changed_over_intact_entries_17", _BUNDLE),
    _of(18, "a partial tile is missing", "3: proves nothing", f"{_A}::test_a_missing_file_proves_nothing_18"),
    _of(19, "an old checkpoint again", "`consistency --max-age`: 4",
        f"{_A}::test_an_old_checkpoint_served_again_is_stale_beyond_the_age_asked_for_19",
        f"{_W}::test_an_old_checkpoint_replayed_with_its_old_lines_is_stale_19"),
    _of(20, "a proof of another place or size, longer or shorter, sizes 0, 1, 2^k", "1; no such proof verifies", _EDITED,
        "audit/test_receipts.py::test_a_proof_for_another_place_or_tree_fails",
        "audit/test_merkle.py::test_no_inclusion_proof_survives_a_change_property",
        "audit/test_merkle.py::test_no_consistency_proof_survives_a_change_property",
        "audit/test_merkle.py::test_every_proof_up_to_130_leaves_is_the_one_of_the_naive_oracle_and_verifies",
        "audit/test_merkle.py::test_from_the_empty_tree_only_an_empty_proof_and_the_empty_root_are_taken"),
    _of(21, "a node as a leaf", "does not verify", "audit/test_merkle.py::test_a_node_can_not_pose_as_a_leaf"),
    _of(22, "traps of the canonical form", "the event is refused when it is made; an opening is refused: 1",
        "audit/test_events.py::test_an_event_outside_the_closed_set_or_without_a_canonical_form_is_refused",
        "audit/test_events.py::test_keys_are_sorted_as_rfc_8785_does_by_utf_16_not_by_code_point",
        "audit/test_events.py::test_the_canonical_form_is_that_of_the_rfc_8785_library_however_it_is_made",
        "audit/test_receipts.py::test_what_is_no_receipt_is_refused"),
    _of(23, "kill -9 at each step from act to answer", "an answer left only after its entry; the log goes on",
        "faults/test_write_ahead_kills.py::test_killed_at_a_step_the_answer_left_only_after_its_entry_and_the_log_goes_on_23",
        "faults/test_log_kills.py::test_writers_killed_at_any_moment_lose_nothing_acknowledged",
        "faults/test_signer_kills.py::test_kill_9_of_the_signer_at_any_moment_leaves_it_able_to_go_on"),
    _of(24, "two sequencers; a paused one goes on", "one writes; the other finds nothing, or is stopped",
        f"{_T}::test_of_two_sequencers_one_writes_and_the_other_finds_nothing_or_is_stopped",
        f"{_T}::test_a_sequencer_that_slept_while_another_worked_writes_nothing",
        f"{_S}::test_a_sequencer_that_slept_over_the_turn_writes_nothing_24"),
    _of(25, "PostgreSQL goes down at once under load", "nothing acknowledged is lost, no gap, no fork",
        "faults/test_log_kills.py::test_a_postgresql_that_goes_down_at_once_loses_nothing_acknowledged"),
    _of(26, "the disk is full, a small event after it", "nothing is released until there is room; audit.degraded",
        "broker/test_room.py::test_on_a_full_disk_the_log_says_so_and_takes_no_smaller_entry_until_there_is_room_26",
        "broker/test_room.py::test_a_full_disk_of_postgresql_is_the_same_26"),
    _of(27, "the clock set back, forward, over a leap or summer time", "clock.anomaly; leaves' times never run back",
        f"{_S}::test_a_clock_that_was_set_is_noticed_27",
        f"{_S}::test_a_clock_that_was_set_is_in_the_log_and_the_leaves_times_do_not_run_back_27",
        f"{_S}::test_leaves_times_know_no_summer_time_27"),
    _of(28, "yesterday's backup put back", "the signer refuses until an operator says how to go on; `broker log status` "
        "1; the erased are erased again first; the receipt of an entry that was lost: 1, to be kept",
        "broker/test_log_cli.py::test_yesterdays_backup_is_refused_until_an_operator_says_how_to_go_on_28",
        f"{_S}::test_a_database_put_back_goes_on_in_a_new_shard_that_says_what_was_lost_28",
        f"{_S}::test_an_agencys_mirror_puts_back_the_leaves_and_the_log_goes_on_in_its_shard_28",
        f"{_S}::test_a_note_without_a_quorum_is_not_cited_beyond_what_was_signed_nor_of_another_tree_nor_before_what_a"
        "_quorum_has",
        f"{_S}::test_a_receipt_of_what_a_restore_lost_is_evidence_and_of_what_it_held_still_holds_28",
        "broker/test_erasure.py::test_a_database_put_back_under_a_signer_that_went_on_serves_nobody_until_the_erased_are"
        "_erased_again_28"),
    _of(29, "sixteen writers, some roll back", "a dense log; as many entries as acts",
        f"{_T}::test_sixteen_writers_with_rollbacks_leave_a_dense_log"),
    _of(30, "an answer while the log fails", "not a byte leaves, whatever step fails",
        "faults/test_release.py::test_while_the_log_fails_at_any_step_not_a_byte_of_any_answer_leaves",
        "faults/test_release.py::test_when_the_log_works_each_answer_begins_after_its_entry_is_signed"),
    _of(31, "the caller hangs up", "disclosure.aborted: not_sent or broken_off",
        "broker/test_leaving.py::test_an_answer_whose_connection_broke_is_recorded_as_broken_off",
        "broker/test_leaving.py::test_to_a_caller_who_has_hung_up_nothing_is_sent_and_that_is_recorded"),
    _of(32, "erase a subject", "`fsck`, `consistency`, `inclusion`, `receipts`: 0 as before; no byte of the body in a file",
        "broker/test_erasure.py::test_erasing_leaves_tree_receipts_and_proofs_and_takes_body_salt_and_key",
        "broker/test_erasure.py::test_after_a_purge_no_file_of_the_database_has_a_byte_of_it",
        "broker/test_erasure.py::test_after_a_purge_no_file_of_postgresql_has_a_byte_of_what_an_erasure_takes_32"),
    _of(33, "try known numbers against commitments", "none is found",
        "broker/test_access.py::test_an_unsalted_dictionary_finds_no_number_in_a_commitment"),
    _of(34, "derive what a subject's answer withholds", "`auditor inclusion` 0 on what is shown; no guess is confirmed",
        "broker/test_access.py::test_each_line_of_a_pack_verifies_offline_with_the_auditor",
        "broker/test_access.py::test_what_is_withheld_is_not_in_the_pack_and_can_not_be_derived_from_it"),
    _of(35, "who owns the database drops the triggers and rewrites", "the signer refuses; `fsck`, `consistency`: 1",
        f"{_S}::test_an_entry_rewritten_by_who_owns_the_database_is_found_though_every_hash_above_it_fits_35", _CUT,
        f"{_T}::test_a_log_that_was_cut_gets_no_signature", f"{_T}::test_a_forged_tile_stops_the_log_for_good"),
    _of(36, "the broker's login updates, deletes, truncates", "the database refuses",
        "broker/test_roles.py::test_no_role_of_a_broker_changes_or_deletes_what_is_only_added_to_36",
        "broker/test_migrations.py::test_the_logs_rows_are_only_added_to_36"),
    _of(37, "review one's own event", "refused (403), and auth.denied",
        "broker/test_reviewing.py::test_nobody_reviews_or_signs_off_an_event_in_which_they_acted_37",
        "broker/test_reviewing.py::test_whoever_decided_does_not_sign_that_off_37"),
    _of(38, "search the log", "one audit.searched, and none of that",
        "broker/test_reviewing.py::test_a_look_at_the_queue_is_logged_once_and_leads_to_no_look_of_its_own_38",
        "broker/test_reports.py::test_an_audit_search_is_itself_logged_once_and_leads_to_no_further_entry"),
    _of(39, "formulas in CSV, lines in notes and logs", "marked as text; one event stays one line",
        "broker/test_reports_formats.py::test_no_cell_of_a_csv_begins_a_formula_however_it_is_typed",
        "broker/test_reports_formats.py::test_nothing_that_was_typed_adds_a_line_or_a_field_to_cef",
        "audit/test_checkpoint.py::test_an_origin_with_a_line_break_or_a_space_is_no_origin",
        "audit/test_witness.py::test_a_name_that_would_break_a_note_is_refused"),
    _of(40, "foreign verifiers on 200 random logs and every tampered one", "each says what ours says of what it looks at",
        "foreign/test_foreign.py::test_ours_accepts_every_honest_log_and_finds_every_change",
        "foreign/test_foreign.py::test_go_agrees_on_every_log",
        "foreign/test_foreign.py::test_sigstores_javascript_agrees_on_every_proof",
        "foreign/test_foreign.py::test_a_python_reader_of_tile_logs_agrees_on_what_it_looks_at",
        "foreign/test_foreign.py::test_openssl_agrees_on_signatures"),
    _of(41, "a million entries", "hashed anew under 10 s; one changed bit: 1",
        "faults/test_rehash.py::test_a_million_entries_are_hashed_anew_in_ten_seconds_and_one_changed_bit_is_found_41"),
    _of(42, "an entry of 64 KiB, a note of more than 16 signatures", "1; neither is ever written", _BUNDLE,
        f"{_A}::test_a_checkpoint_that_is_none_is_found",
        "audit/test_events.py::test_an_event_outside_the_closed_set_or_without_a_canonical_form_is_refused",
        f"{_W}::test_more_lines_than_a_note_may_have_are_refused_and_no_more_is_ever_written_42"),
    _of(43, "tell shown, hidden and absent apart by the log", "same events, same leaves; notice.batch on its schedule",
        "broker/test_silence.py::test_a_record_nobody_may_see_is_answered_as_if_it_were_not_there",
        "broker/test_silence.py::test_a_child_who_is_hidden_altogether_is_answered_as_one_nobody_knows",
        "broker/test_considering.py::test_a_round_is_one_leaf_whether_or_not_it_raises_anything_and_is_held_once"),
    _of(44, "learn `detail` from the asker's opening", "it is withheld",
        f"{_T}::test_a_receipt_proves_the_event_and_never_opens_what_was_hidden",
        "broker/test_asking.py::test_each_receipt_verifies_offline_and_never_opens_what_was_hidden"),
    _of(45, "type a name into a search and a reason", "nowhere in the log's tables",
        "linkage/agency/gateway/test_note.py::test_a_name_typed_in_a_search_and_in_a_reason_reaches_no_broker_45",
        "broker/test_subjects.py::test_what_was_typed_is_in_no_table_of_the_log",
        "broker/test_asking.py::test_what_is_typed_at_the_gateway_is_found_nowhere_at_the_broker"),
    _of(46, "a route that returns case data without its event", "there is none",
        "architecture/test_routes.py::test_every_route_is_listed_with_what_it_writes",
        "architecture/test_routes.py::test_asking_writes_its_events_and_no_other",
        "faults/test_release.py::test_every_route_is_asked_or_tells_nobody_anything"),
    _of(47, "cut the auditor's network off", "every command passes",
        f"{_W}::test_every_command_of_the_auditor_passes_with_the_network_cut_off_47"),
    _of(48, "pull, cosign, hand in", "the round trip holds; the broker opens no connection",
        "journeys/test_witnessing.py::test_agencies_pull_cosign_and_hand_in_and_the_broker_opens_no_connection_48"),
)  # fmt: skip
"""All forty-eight, in order."""

_HEAD: Final = """\
# Attacks and faults

Rendered from `attacks.py` (`python -m tests.audit.attacks`); a test keeps it current, and every test it names in being.

A number alone is an exit code of `auditor`: 0 fine, 1 not what was signed, 3 proves nothing, 4 stale, 5 no quorum.

| | what is done | who finds it, and how it is said | shown by |
|---|---|---|---|
"""


def rendered() -> str:
    """The text of `ATTACKS.md`."""
    return _HEAD + "\n".join(_rows()) + "\n"


def _rows() -> Iterator[str]:
    for one in ATTACKS:
        shown = "<br>".join(f"`{where}`" for where in one.shown)
        yield f"| {one.number} | {one.what} | {one.found} | {shown} |"


if __name__ == "__main__":
    sys.stdout.write(rendered())
