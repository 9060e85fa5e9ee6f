"""Who may want what they must not have, what stops them, where that is written, and which tests show it: `THREATS.md`.

The numbers are those of the threat model that all of it was built against.  `python -m tests.broker.threats` prints the
page; tests/broker/test_threat_list.py keeps it current, and every module and test that it names in being.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Threat:
    """One of the list.  `where`: files of the mitigation; `shown`: `file::test`, from tests/; `absent`: what is not
    built, or is the host's."""

    number: int
    who: str
    stopped: str
    where: tuple[str, ...]
    shown: tuple[str, ...]
    absent: str = ""


def _of(number: int, who: str, stopped: str, where: str, *shown: str, absent: str = "") -> Threat:
    return Threat(number, who, stopped, tuple(where.split()), shown, absent)


_A: Final = "broker/test_asking.py"
_APP: Final = "broker/test_app.py"
_S: Final = "broker/test_submissions.py"
_T: Final = "broker/test_threats.py"
_O: Final = "broker/test_denial_oracle.py"
_Q: Final = "broker/test_silence.py"
_L: Final = "broker/test_ledger.py"
_G: Final = "linkage/agency/gateway/test_app.py"
_V: Final = "linkage/agency/gateway/test_view.py"
_LOG: Final = "audit/test_attacks.py"
_ATTACK: Final = "linkage/evaluation/attack"
_HIDDEN: Final = f"{_Q}::test_a_child_who_is_hidden_altogether_is_answered_as_one_nobody_knows"
_UNSEEN: Final = f"{_Q}::test_a_record_nobody_may_see_is_answered_as_if_it_were_not_there"
_BUDGET: Final = "broker/test_budgets.py::test_nobody_gets_past_a_budget_by_any_order_of_calls"
_DUMP: Final = f"{_T}::test_a_dump_without_one_of_the_two_keys_confirms_no_guess_and_with_both_confirms_everybody"
_OTHERS: Final = "broker/test_owners.py::test_what_is_anothers_answers_as_what_is_not_there"
_ERASED_AGAIN: Final = "broker/test_erasure.py::test_an_old_copy_of_the_database_is_emptied_again_before_it_serves"

THREATS: Final = (
    _of(1, "an operator with the whole dump tries a dictionary", "tokens keyed by the agencies and again by the broker; "
        "vault and spool sealed, their keys outside the database",
        "linkage/agency/encode.py broker/keys.py broker/vault.py broker/spool.py", _DUMP,
        f"{_ATTACK}/test_dictionary.py::test_a_dictionary_finds_everybody_with_all_keys_and_nobody_with_one_missing",
        "broker/test_nightly.py::test_tokens_in_the_vault_are_peppered_and_segments_sealed",
        "broker/test_vault.py::test_nothing_readable_is_on_the_disk",
        f"{_S}::test_the_spool_and_the_database_hold_ciphertext_only",
        absent="filters take no pepper: whoever has the linkage key and the vault's key can try guesses on them"),
    _of(2, "somebody with encodings, statistics and a register", "hardened encodings; none of them and no score leaves",
        "linkage/agency/encode.py linkage/evaluation/attack/results.py broker/api/searches.py",
        f"{_T}::test_no_encoding_leaves_in_an_answer",
        f"{_ATTACK}/test_results.py::test_the_shipped_ceilings_name_attacks_that_exist_and_hold_the_bars_of_the_guarded_profile",
        f"{_ATTACK}/test_command.py::test_a_result_above_its_ceiling_exits_1_and_is_named",
        f"{_ATTACK}/test_frequency.py::test_a_guarded_name_alone_is_read_less_often_than_by_a_blind_guess",
        f"{_ATTACK}/test_graph.py::test_salted_dates_and_postcodes_give_hardly_anybody_away_and_unsalted_ones_most",
        "broker/test_reviews.py::test_one_pair_is_shown_in_levels_and_words_and_never_in_values",
        absent="who lives together stays a weak spot inside the vault: README has the figures"),
    _of(3, "an agency sends crafted records to learn who is known elsewhere", "a submitter is told of syntax alone; a night "
        "of unusual size waits for a person",
        "broker/submissions.py broker/validation.py broker/judging.py",
        "broker/test_submitter.py::test_who_else_is_known_and_where_changes_no_answer_to_a_submitter",
        f"{_S}::test_a_county_is_not_deleted_by_a_short_file",
        "broker/test_anomalies.py::test_searches_that_fish_are_known_by_what_was_encoded",
        absent="no second person for views by one's own young records; no planted identities"),
    _of(4, "an analyst trawls", "purpose and case are due; budgets a person and an organisation; rules flag; owners are told "
        "of each view; a second person signs off",
        "broker/searches.py broker/budgets.py broker/anomalies.py broker/ledger.py broker/reviewing.py", _BUDGET,
        "broker/test_budgets.py::test_of_many_at_one_moment_no_more_pass_than_may",
        f"{_A}::test_who_opens_too_many_views_is_told_when_to_try_again_and_the_log_says_so",
        f"{_L}::test_every_view_is_told_once_to_each_organisation_whose_records_it_showed",
        f"{_L}::test_the_latest_25_accesses_of_a_record_and_of_no_other_organisations",
        "broker/test_anomalies.py::test_a_night_flags_what_the_rules_find_once_with_figures_and_an_event",
        "broker/test_reviewing.py::test_every_break_glass_waits_without_a_flag_and_for_one_working_day",
        f"{_A}::test_a_case_of_another_child_shows_nothing_and_says_nothing_of_it"),
    _of(5, "somebody tells refusals, hidden and absent children apart", "hidden is as not there: bytes, leaves, statements, "
        "and answers at a fixed pace; refusals are decided before the child is looked up",
        "broker/searches.py broker/deciding.py broker/api/leaving.py", _UNSEEN, _HIDDEN,
        f"{_Q}::test_nobody_is_found_by_a_hidden_record_alone_nor_more_surely_for_it",
        f"{_A}::test_refusals_are_the_same_sentences_for_every_child", _OTHERS,
        "broker/test_leaving.py::test_how_long_deciding_took_does_not_show",
        "broker/test_leaving.py::test_an_answer_leaves_at_a_whole_step_after_its_question_however_long_it_took",
        f"{_O}::test_a_spoken_refusal_is_the_same_for_a_child_who_is_known_hidden_or_nobody",
        f"{_O}::test_to_the_last_byte_and_header_an_answer_is_as_long_for_hidden_as_for_nobody",
        f"{_O}::test_the_time_after_which_an_answer_leaves_does_not_tell_hidden_from_nobody",
        f"{_A}::test_a_search_of_somebody_else_an_invented_and_an_expired_one_are_alike_not_there",
        absent="what is done before the pace takes longer for hidden than for nobody (36 ms against 30): a broker so busy that "
        "answers take more than a step of it may tell, to whoever asks very often"),
    _of(6, "a thief of a token", "ten minutes, one audience, revocation with the next call, a certificate where the host asks "
        "for them; nothing is taken in without the agency's signature, nothing shown without the gateway's",
        "broker/tokens.py broker/certificates.py broker/callers.py broker/manifests.py",
        "broker/test_client_certificates.py::test_a_token_holds_over_the_connection_it_was_given_over_alone",
        "broker/test_tokens.py::test_an_access_token_holds_until_it_ends_and_for_this_broker_only",
        f"{_APP}::test_a_suspended_agencys_token_stops_with_the_next_request",
        f"{_APP}::test_an_assertion_for_another_body_path_query_role_or_agency_or_a_second_time_is_refused",
        f"{_S}::test_an_unsigned_manifest_is_refused", f"{_S}::test_a_key_revoked_in_mid_upload_stops_the_commit",
        "broker/test_signin.py::test_an_ended_or_invented_session_is_no_session",
        absent="requests of a submission bear no signature each (RFC 9421): without certificates a stolen token reads its "
        "agency's batches and withdraws one that is not committed"),
    _of(7, "a forger of tokens", "one guarded module, one algorithm a key, every claim due, nothing encrypted decoded",
        "broker/tokens.py", "broker/test_tokens.py::test_refused",
        "broker/test_tokens.py::test_the_four_algorithms_and_each_only_with_a_key_of_its_kind",
        "broker/test_tokens.py::test_keys_that_are_not_taken",
        "broker/test_tokens.py::test_what_is_accepted_here_joserfc_verifies_too",
        "broker/test_tokens.py::test_no_single_changed_letter_passes",
        "broker/test_tokens.py::test_rubbish_is_refused_and_never_a_fault", "broker/test_tokens.py::test_a_megabyte_is_refused"),
    _of(8, "somebody replays, reorders, cuts or swaps a batch", "signed manifest with a digest of each chunk; numbered "
        "nights; assertions and client assertions count once",
        "broker/manifests.py broker/submissions.py broker/spool.py broker/callers.py",
        f"{_S}::test_the_same_night_handed_in_twice_changes_nothing", f"{_S}::test_tampered_chunks_never_reach_the_spool",
        f"{_S}::test_a_commit_for_another_manifest_is_refused", f"{_S}::test_a_gap_is_held_and_named",
        f"{_S}::test_a_night_that_comes_late_is_kept_and_not_applied", f"{_S}::test_chunks_swapped_in_the_spool_are_noticed",
        f"{_S}::test_a_key_or_a_night_of_another_batch_is_a_conflict", f"{_APP}::test_an_assertion_is_used_once"),
    _of(9, "an agency, or the broker, denies what was sent", "the agency's signature is kept; the broker's receipt is signed and "
        "in the log; the agency keeps a journal",
        "broker/receipts.py linkage/agency/journal.py audit/receipts.py",
        f"{_S}::test_receipts_are_signed_and_in_the_log",
        "journeys/test_requests_kept.py::test_each_request_of_a_person_has_its_receipt_and_the_lost_one_is_found",
        f"{_LOG}::test_whoever_holds_a_receipt_finds_that_it_was_edited"),
    _of(10, "an agency writes over another's rows", "whose rows they are is the credential's to say; each key of a row has the "
        "agency in it",
        "broker/submissions.py broker/store/items.py",
        f"{_T}::test_whatever_names_a_batch_bears_the_rows_of_another_agency_stay_as_they_are",
        f"{_S}::test_nobody_sees_or_touches_anothers_batch", f"{_S}::test_a_full_night_replaces_the_flows_items_and_no_others",
        f"{_S}::test_a_manifest_not_on_our_terms_is_refused_by_the_place", _OTHERS),
    _of(11, "whoever has taken over the broker's process", "logins of the least that is needed, the log's key in another "
        "process, strangers' files read by a fork without keys, no way out of the network",
        "broker/store/roles.py broker/signing.py broker/parsing.py linkage/matching/fence.py deploy/kubernetes/network.yaml",
        "broker/test_roles.py::test_no_role_of_a_broker_changes_or_deletes_what_is_only_added_to_36",
        "broker/test_roles.py::test_with_three_logins_what_serves_neither_adds_to_the_log_nor_empties_it",
        "broker/test_signing.py::test_the_broker_process_holds_no_private_key_of_the_log",
        "broker/test_parsing.py::test_what_reads_has_no_environment_no_file_no_core_and_a_limit_of_memory",
        "broker/test_parsing.py::test_a_reader_that_was_taken_over_reaches_no_file_but_its_batch",
        "deploy/test_manifests.py::test_nothing_goes_in_or_out_but_what_a_policy_names",
        "journeys/test_witnessing.py::test_agencies_pull_cosign_and_hand_in_and_the_broker_opens_no_connection_48",
        absent="what serves searches holds the vault's key"),
    _of(12, "an agency and an operator together", "a dump and the linkage key still lack the pepper and the vault's key, which "
        "may lie sealed under a token's; the linkage key itself is shared out",
        "broker/hsm.py broker/keys.py linkage/agency/shares.py", _DUMP,
        "broker/test_hsm.py::test_nothing_in_the_folder_opens_without_the_token",
        "broker/test_hsm.py::test_without_its_token_a_broker_takes_nothing_in_and_shows_nothing_and_goes_on_with_it",
        "linkage/agency/test_shares.py::test_one_share_twice_a_share_too_few_or_of_another_ceremony_makes_nothing",
        absent="a custodian who counts calls to the pepper: while the broker runs, pepper and vault key are in its memory"),
    _of(13, "whoever owns the database edits the log or rows", "a Merkle log, signed by a process apart and witnessed; rows sealed "
        "to their place; what is only added to is so by trigger and by role",
        "audit/merkle.py broker/signing.py broker/witnesses.py broker/keys.py",
        f"{_LOG}::test_a_tail_cut_off_with_a_stolen_key_is_found_by_whoever_kept_a_checkpoint_7",
        f"{_LOG}::test_a_log_cut_off_and_regrown_past_the_kept_size_is_found_8",
        f"{_LOG}::test_a_fork_shown_to_one_agency_is_found_when_its_receipt_meets_anothers_folder_9",
        f"{_LOG}::test_fsck_finds_entries_that_were_changed_under_intact_tiles_17",
        "broker/test_shards.py::test_an_entry_rewritten_by_who_owns_the_database_is_found_though_every_hash_above_it_fits_35",
        "broker/test_keys.py::test_what_is_sealed_opens_in_its_own_place_only",
        "broker/test_trail.py::test_bodies_can_not_be_swapped_between_events",
        absent="rows that are not sealed (agencies, flows, agreements) have no seal of their own; agreements have signatures"),
    _of(14, "a thief of backups; a restore that brings back an erased child", "no copy of a night has a key; who was erased is "
        "erased again before anything is served",
        "broker/erasure.py broker/store/tombstones.py deploy/postgresql/backup.sh deploy/postgresql/restore.sh", _ERASED_AGAIN,
        "deploy/test_restore.py::test_a_lost_host_comes_back_with_the_same_witnessed_root_and_the_erased_still_erased",
        "deploy/test_restore.py::test_copies_are_for_their_owner_alone_and_no_copy_of_a_night_has_a_key",
        "broker/test_erasure.py::test_what_a_subjects_key_wrapped_can_not_be_opened_from_an_old_copy_of_bodies_and_event_keys",
        "broker/test_erasure.py::test_after_a_purge_no_file_of_the_database_has_a_byte_of_it"),
    _of(15, "somebody goes on under an agreement that ended in mid-session", "each view is decided on what is in force then, under "
        "a snapshot the receipt names",
        "broker/disclosures.py broker/deciding.py broker/activation.py",
        f"{_Q}::test_each_time_a_view_is_opened_it_is_decided_on_what_is_in_force_then",
        f"{_Q}::test_a_view_ends_no_later_than_the_agreement_it_is_shown_under",
        f"{_A}::test_a_party_that_suspends_stops_its_own_data_alone_even_between_search_and_view",
        "broker/test_agreement_life.py::test_a_view_that_is_open_is_decided_again_once_a_party_stops_its_disclosures"),
    _of(16, "whoever sends what breaks a parser", "limits before anything is copied; Parquet in a fork with limits; JSON of strict "
        "form; nothing inflated at the edge",
        "broker/parsing.py linkage/matching/parser.py linkage/matching/intake.py broker/app.py broker/documents.py",
        "linkage/matching/test_intake.py::test_a_parquet_bomb_is_refused_in_little_memory",
        "linkage/matching/test_intake.py::test_whatever_byte_is_wrong_check_answers",
        "broker/test_parsing.py::test_a_parquet_bomb_meets_a_limit_elsewhere_and_is_too_large",
        "broker/test_parsing.py::test_a_batch_that_crashes_its_reader_time_and_again_is_unreadable",
        f"{_APP}::test_bodies_are_limited_by_what_they_declare_and_by_what_they_are",
        "broker/test_limits.py::test_each_limit_of_the_api_takes_as_much_as_it_says_and_no_more",
        "broker/test_limits.py::test_a_limit_of_a_module_takes_as_much_as_it_says_and_no_more",
        "broker/test_api_document.py::test_every_answer_to_a_request_that_does_not_fit_is_documented",
        absent="no coverage-guided fuzzing: properties and Schemathesis"),
    _of(17, "a batch has DuckDB read files or the network", "one folder, no outside, fixed before the batch is opened; and "
        "by the kernel too, where it has Landlock",
        "linkage/matching/intake.py linkage/matching/fence.py",
        "linkage/matching/test_intake.py::test_duckdb_is_locked_to_the_folder_of_the_batch",
        "linkage/matching/test_fence.py::test_what_is_fenced_in_reads_its_folder_and_does_nothing_else",
        "broker/test_parsing.py::test_a_reader_that_was_taken_over_reaches_no_file_but_its_batch"),
    _of(18, "a page of somebody else's, or markup in data", "a policy of nonces, synchroniser tokens, Origin and Fetch metadata, "
        "cookies bound to the host, nothing changed by GET",
        "broker/app.py broker/web/pages.py broker/api/forms.py linkage/agency/gateway/headers.py linkage/agency/gateway/forms.py",
        f"{_APP}::test_every_answer_carries_the_headers_that_are_due", f"{_G}::test_every_response_carries_the_security_headers",
        f"{_G}::test_the_cookie_is_bound_to_the_host_and_out_of_reach_of_scripts",
        f"{_G}::test_a_form_from_elsewhere_changes_nothing",
        "broker/web/test_log_pages.py::test_a_form_from_elsewhere_is_not_taken",
        "broker/web/test_log_pages.py::test_pages_carry_the_policy_and_its_nonce",
        f"{_V}::test_markup_in_an_answer_is_shown_as_text",
        "broker/test_exporting.py::test_what_a_document_says_is_never_markup"),
    _of(19, "formulas and lines in what is exported", "every cell guarded, generated names, one event one line",
        "broker/reports/formats.py broker/reports/cef.py",
        "broker/test_reports_formats.py::test_no_cell_of_a_csv_begins_a_formula_however_it_is_typed",
        "broker/test_reports_formats.py::test_nothing_that_was_typed_adds_a_line_or_a_field_to_cef",
        f"{_L}::test_a_cell_that_a_spreadsheet_would_run_is_marked_as_text"),
    _of(20, "logs, figures, addresses or files tell of somebody", "log lines of listed keys; no address with a value; reasons struck "
        "at the gateway; faults told without their words",
        "broker/log_lines.py broker/metrics.py linkage/agency/gateway/typed.py",
        "broker/test_canaries.py::test_nothing_planted_is_found_in_anything_of_a_broker_on_sqlite",
        "broker/test_canaries.py::test_nothing_planted_is_found_in_anything_of_a_broker_on_postgresql",
        f"{_A}::test_what_is_typed_at_the_gateway_is_found_nowhere_at_the_broker",
        "journeys/test_demo.py::test_no_name_number_address_or_key_reaches_the_brokers_disk",
        "linkage/agency/gateway/test_note.py::test_a_name_typed_in_a_search_and_in_a_reason_reaches_no_broker_45",
        "broker/test_canaries.py::test_a_program_that_holds_keys_or_names_leaves_no_core_file",
        f"{_G}::test_a_typed_name_is_in_no_title_address_file_name_log_or_file",
        f"{_G}::test_a_fault_shows_and_logs_none_of_its_words_and_has_the_headers",
        "broker/test_metrics.py::test_a_log_line_s_event_is_a_literal_and_its_keys_are_on_the_list",
        "broker/test_metrics.py::test_what_a_library_says_is_told_without_its_words",
        "broker/test_metrics.py::test_after_a_night_and_a_view_the_figures_tell_of_both_and_of_nobody",
        f"{_APP}::test_a_malformed_body_is_named_by_place_and_never_quoted",
        "broker/test_reports_api.py::test_no_reference_of_a_person_a_case_or_a_child_stands_in_a_url",
        "deploy/test_proxies.py::test_the_proxy_keeps_nothing_of_what_was_asked"),
    _of(21, "another tenant's or a lying identity provider", "issuer, audience, nonce, key and listed claims; a second factor where "
        "the settings name it",
        "broker/signin/provider.py linkage/agency/gateway/provider.py",
        "broker/web/test_sign_in.py::test_a_token_that_does_not_hold_signs_nobody_in",
        "broker/web/test_sign_in.py::test_whoever_has_no_way_in_is_told_why_and_it_is_in_the_log",
        "broker/web/test_sign_in.py::test_a_provider_that_points_elsewhere_is_not_followed",
        "linkage/agency/gateway/test_sign_in.py::test_a_token_that_does_not_hold_signs_nobody_in",
        absent="no step-up within a session: the factor is asked for at sign-in"),
    _of(22, "somebody looks for a shielded child or place", "a shield from any source hides; protected places are not even encoded; "
        "the protecting agency is told of searches",
        "broker/searches.py broker/linked.py linkage/agency/persons.py broker/considering.py", _HIDDEN,
        f"{_A}::test_a_child_who_is_shielded_altogether_is_answered_as_one_nobody_knows",
        f"{_A}::test_a_shielded_address_finds_nobody",
        f"{_A}::test_one_flag_on_the_mother_takes_every_place_from_every_view_of_the_child",
        "linkage/agency/test_batch.py::test_a_protected_place_does_not_leave_even_encoded",
        "broker/test_considering.py::test_a_full_shield_alerts_its_owner_once_and_nobody_else",
        f"{_L}::test_who_is_hidden_is_in_nobodys_ledger_and_the_log_is_as_for_nobody"),
    _of(23, "somebody infers from a family view", "who is not shown is left out before anything is drawn, counted or ordered",
        "broker/family_view.py broker/linked.py",
        "broker/test_family_view.py::test_a_hidden_relative_leaves_no_line_and_no_count",
        f"{_Q}::test_a_member_of_the_household_who_must_stay_hidden_is_as_one_nobody_knows",
        f"{_A}::test_neither_identity_of_an_adopted_child_leads_to_the_other",
        "broker/test_linked.py::test_who_is_not_shown_and_what_is_not_told_contradicts_nothing",
        "linkage/matching/test_families.py::test_property_no_path_leads_across_a_sever_and_nothing_is_cut_that_need_not_be"),
    _of(24, "families are not told; data are kept too long", "a subject's pack with proofs; terms of keeping, run and certified",
        "broker/access.py broker/packs.py broker/retention.py",
        "broker/test_access.py::test_each_line_of_a_pack_verifies_offline_with_the_auditor",
        "broker/test_access.py::test_issuing_a_pack_is_an_event_with_its_digest_and_is_in_the_next_one",
        "broker/test_access.py::test_the_officer_rules_section_by_section_and_entry_by_entry",
        "broker/test_retention.py::test_every_type_of_event_has_its_years",
        "broker/test_reports_registers.py::test_a_retention_certificate_has_a_row_for_each_count_and_digest"),
    _of(25, "whoever changes what we depend on", "locks with hashes, one version for tests and images, vendored files by digest",
        "requirements.lock deploy/images/broker.lock deploy/images/gateway.lock",
        "architecture/test_boundary.py::test_a_lock_file_holds_hashes_and_no_address",
        "architecture/test_vendored.py::test_every_vendored_file_has_the_digest_that_is_written_down_and_no_other_file_lies_there",
        "deploy/test_images.py::test_an_image_installs_what_the_tests_ran_with",
        "architecture/test_wheel.py::test_the_same_tree_makes_the_same_wheel_to_the_last_byte",
        absent="signed releases by two people are whoever releases'"),
    _of(26, "a feed that stopped is read as a child who is safe", "each feed's state on every view; late is `STALE`, never no record",
        "broker/family_view.py broker/agencies.py",
        f"{_A}::test_a_feed_that_is_two_days_late_says_so_and_never_that_there_is_nothing",
        "broker/test_family_view.py::test_absence_is_never_reassurance_and_a_late_feed_never_reads_as_no_record",
        "broker/test_agencies.py::test_a_feed_past_its_time_is_stale_and_never_no_record",
        f"{_V}::test_no_match_is_never_reassurance_and_names_everyone_to_ring",
        f"{_V}::test_a_late_feed_with_something_to_show_says_both_and_keeps_it"),
    _of(27, "a rogue or careless gateway", "an assertion by the organisation's key for one person, role and request, once; roles "
        "enrolled for it alone; a budget of the organisation; no name kept or logged there",
        "broker/callers.py broker/tokens.py broker/budgets.py linkage/agency/gateway/store.py",
        f"{_APP}::test_an_assertion_for_another_body_path_query_role_or_agency_or_a_second_time_is_refused",
        "broker/test_tokens.py::test_a_gateway_vouches_for_one_person_on_one_request",
        "broker/test_tokens.py::test_an_assertion_that_says_less_or_more_is_refused",
        "broker/test_who_may.py::test_whoever_is_not_listed_is_denied_on_every_route", _BUDGET,
        f"{_G}::test_a_typed_name_is_in_no_title_address_file_name_log_or_file",
        f"{_G}::test_a_fault_shows_and_logs_none_of_its_words_and_has_the_headers"),
)  # fmt: skip
"""All twenty-seven, in order."""

_HEAD: Final = """\
# Threats

Rendered from `threats.py` (`python -m tests.broker.threats`); a test keeps it current, and every module and test it names in being.

| | who, and what they want | what stops them | where | shown by | absent, or yours |
|---|---|---|---|---|---|
"""


def rendered() -> str:
    """The text of `THREATS.md`."""
    return _HEAD + "\n".join(_rows()) + "\n"


def _rows() -> Iterator[str]:
    for one in THREATS:
        where, shown = ("<br>".join(f"`{each}`" for each in cell) for cell in (one.where, one.shown))
        yield f"| T{one.number} | {one.who} | {one.stopped} | {where} | {shown} | {one.absent} |"


if __name__ == "__main__":
    sys.stdout.write(rendered())
