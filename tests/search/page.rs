//! `docs/reliability.md`, written from the tables that the tests run on. `KEYWHEEL_BLESS=1` writes it.
//!
//! Every test it names must be there; what nothing covers is listed as such.

use std::fmt::Write as _;
use std::path::Path;

use super::grid::{COLUMNS, rows};

/// What goes wrong, what Keywheel does then, and the tests that show it.
type Line = (&'static str, &'static str, &'static str, &'static [&'static str]);

const INVARIANTS: &[(&str, &str)] = &[
    ("I1", "Atlas is never sent a key but the approved new one and the recorded old one."),
    ("I2", "Every PATCH that Atlas receives has an attempt that was committed before."),
    ("I3", "A PATCH of the new key leaves with its approvals, before its expiry and in a window."),
    ("I4", "PATCHes are few and never a storm; one open rotation for each project."),
    (
        "I5",
        "`completed` means an unbroken run of true readings of the new key, spread over (readings - 1) x every.",
    ),
    (
        "I6",
        "Proven, rolled back or paged in time: 16 minutes; on private networking 23 from the last PATCH or bad report.",
    ),
    ("I7", "No PATCH after a look that showed a third key."),
    ("I9", "The audit chain verifies, with an intent for each PATCH."),
    ("I10", "Every end is announced, in the transaction that writes it."),
    ("I11", "One vote for each person, or none."),
    (
        "I13",
        "No endpoint set is asked before its own `Retry-After` is over, and only that of the configuration blinds a rotation: for five minutes at most, and while a key is proven for less.",
    ),
    ("I14", "Due dates and deadlines come from recorded instants."),
    ("I16", "When the faults stop, the rotation ends, and what is recorded is what Atlas holds."),
];

/// Faults of Atlas whose own tests run over real HTTP.
const OVER_HTTP: &[(&str, &[&str])] = &[
    ("A1", &["a_lost_request_is_sent_again", "a_dropped_request_has_no_effect_and_no_reply"]),
    (
        "A2",
        &[
            "a_lost_reply_is_not_a_second_patch",
            "a_silent_change_is_unknown_and_a_refused_connection_is_not_taken",
        ],
    ),
    ("A3", &["a_late_effect_is_waited_for_or_made_harmless"]),
    ("A4", &["an_html_error_page_is_no_answer", "a_reading_that_is_no_configuration_is_no_reading"]),
    ("A5", &["a_rate_limit_is_waited_out", "retry_after_is_seconds_or_an_instant"]),
    ("A6", &["a_rate_limit_waits_what_it_asks_and_never_less_than_ten_seconds_without"]),
    ("A8", &["every_published_code_has_its_class"]),
    (
        "A9",
        &[
            "a_refused_key_fails_with_atlas_words_and_changes_nothing",
            "atlas_refusals_keep_its_words_and_their_class",
        ],
    ),
    ("A10", &["a_reply_too_large_to_read_is_no_reading", "a_change_without_a_definite_answer_is_unknown"]),
    ("A11", &["one_false_reading_is_borne"]),
    ("A12", &["a_key_that_fails_on_the_nodes_is_rolled_back"]),
    ("A13", &["a_flapping_key_is_never_completed_by_luck"]),
    ("A14", &["a_slow_proof_is_waited_for", "what_is_never_proven_pages_and_is_not_rolled_back"]),
    (
        "A15",
        &[
            "a_third_key_is_never_patched_over",
            "arn_and_bare_id_are_the_same_key_unless_they_disagree",
            "azure_keys_compare_without_case_and_trailing_slash",
        ],
    ),
    ("A16", &["disabled_encryption_and_a_second_provider_are_seen"]),
    (
        "A17",
        &["a_401_gets_one_new_token_and_one_repetition", "a_second_401_is_final_and_uses_up_no_more_tokens"],
    ),
    ("A18", &["a_missing_right_and_a_missing_project_are_told_apart"]),
    ("A19", &["a_change_between_our_look_and_our_patch_is_told"]),
    ("A20", &["somebody_elses_key_stays_whenever_it_comes"]),
    ("A21", &["an_undone_rotation_is_a_revert_with_the_lines_that_make_terraform_agree"]),
    ("A22", &["a_refused_rollback_pages_and_heals_when_the_key_does"]),
    (
        "A25",
        &[
            "a_key_service_out_of_reach_is_not_rolled_back",
            "the_alert_about_an_unreachable_key_service_is_found",
        ],
    ),
    ("A28", &["clusters_are_read_page_by_page_from_our_own_addresses"]),
    (
        "A29",
        &[
            "a_reply_that_never_comes_ends_in_time",
            "a_redirect_is_not_followed_and_its_address_is_shown_without_its_secrets",
        ],
    ),
    ("A30", &["a_stale_read_shows_the_key_from_before"]),
    ("A31", &["a_refused_rollback_pages_and_heals_when_the_key_does"]),
    ("A32", &["on_private_networking_a_key_that_turns_out_bad_is_not_completed"]),
    (
        "A33",
        &[
            "a_token_serves_to_its_end_and_not_beyond_while_none_can_be_had",
            "no_token_is_asked_for_before_the_time_that_retry_after_names",
        ],
    ),
    (
        "A34",
        &[
            "a_drained_bucket_of_the_clusters_ends_no_rotation",
            "a_wait_is_one_sets_one_projects_and_one_credentials",
        ],
    ),
    (
        "A35",
        &[
            "a_drained_bucket_before_the_patch_holds_it_until_the_clusters_answer",
            "without_retry_after_a_wait_doubles_until_an_answer_comes",
        ],
    ),
    ("A38", &["a_drained_bucket_of_the_alerts_delays_a_rollback_and_does_not_prevent_it"]),
];

const DATABASE: &[Line] = &[
    (
        "C12",
        "killed during a migration, or while an audit row is appended",
        "the next start goes on; the chain is unbroken",
        &[
            "a_migration_that_is_killed_is_done_again",
            "killed_at_any_instant_on_sqlite_it_loses_nothing_and_repeats_nothing_that_matters",
        ],
    ),
    (
        "C13",
        "power loss",
        "SQLite runs with WAL and `synchronous = FULL`, so a committed intent is on the disk",
        &["a_commit_on_sqlite_is_on_the_disk"],
    ),
    (
        "C14",
        "a crash loop",
        "log-ins are counted in the database, ten a minute, restarts included",
        &["tokens_are_counted_over_restarts", "a_used_up_budget_sends_nothing_and_says_when_there_is_room"],
    ),
    (
        "-",
        "SIGKILL of the real binary at random instants, on both databases",
        "every rotation converges; no PATCH without intent",
        &[
            "killed_at_any_instant_on_sqlite_it_loses_nothing_and_repeats_nothing_that_matters",
            "killed_at_any_instant_on_postgres_it_loses_nothing_and_repeats_nothing_that_matters",
        ],
    ),
    (
        "D2",
        "a COMMIT fails and its connection still believes to be in a transaction",
        "the connection is thrown away",
        &["a_full_disk_writes_nothing_and_says_so", "seeds_keep_the_invariants"],
    ),
    (
        "D3",
        "the disk is full when an intent is to be committed",
        "nothing is sent; it goes on when there is room",
        &["a_full_disk_at_the_intent_sends_nothing_and_goes_on_when_there_is_room"],
    ),
    (
        "D4",
        "commits fail after the PATCH",
        "as after a crash: Atlas is looked at first",
        &["seeds_keep_the_invariants"],
    ),
    (
        "D5",
        "the connection is lost in a transaction, or the answer to a COMMIT is",
        "the step recognises its own write, or is refused",
        &[
            "a_lost_commit_and_a_lost_answer_write_each_step_once",
            "with_a_bad_network_to_the_database_nothing_is_lost",
        ],
    ),
    (
        "D6, D10",
        "a failover to a lagging replica, a restore from a backup",
        "nothing is acted on until `doctor --accept-restore`; the differences are listed",
        &[
            "a_backup_from_before_the_patch_is_not_acted_on",
            "a_backup_from_the_middle_goes_on_once_it_is_accepted",
            "a_copy_that_went_another_way_is_told_from_the_original",
            "a_database_that_goes_back_under_a_running_daemon_is_noticed",
        ],
    ),
    (
        "D7",
        "serialization failures and deadlocks",
        "the whole transaction is repeated, six times at most",
        &[
            "a_transaction_that_the_database_gives_up_is_repeated",
            "it_is_repeated_a_bounded_number_of_times_and_says_what_is_not_known",
        ],
    ),
    (
        "D8",
        "a database that is read-only or lacks rights",
        "refused at the start, with what to do",
        &["a_postgres_that_cannot_be_used_says_what_to_do", "a_file_that_cannot_be_used_says_what_to_do"],
    ),
    (
        "D9",
        "a bit flips in the audit log",
        "no new key is sent until it is accepted; all else goes on; the row is named",
        &[
            "a_broken_audit_chain_stops_new_keys_until_it_is_accepted",
            "the_chain_names_what_was_tampered_with",
        ],
    ),
    (
        "D11, T1",
        "clocks two hours apart",
        "new PATCHes and expiries are held",
        &["two_hours_between_our_clock_and_the_databases_hold_every_new_patch"],
    ),
    (
        "D12",
        "people read slowly",
        "the state machine has connections of its own",
        &["slow_reads_do_not_keep_a_rotation_waiting"],
    ),
    (
        "-",
        "the two databases differ",
        "the same operations come to the same tables",
        &[
            "the_same_operations_come_to_the_same_on_both_databases",
            "every_statement_prepares_on_both_databases",
        ],
    ),
];

const MAIL: &[Line] = &[
    (
        "C8",
        "killed after the mail server has taken a mail, before that is written",
        "it is sent again under the same Message-ID",
        &["a_killed_mail_sender_sends_the_same_mail_again_under_the_same_id"],
    ),
    (
        "M1",
        "no mail server for three days",
        "every mail arrives once; after five days it is given up with the last words",
        &[
            "three_days_without_a_server_lose_no_mail_and_repeat_none",
            "after_five_days_a_mail_is_given_up_with_the_last_words",
        ],
    ),
    (
        "M2, M3",
        "451 to one recipient, 550 to another",
        "the first is tried after 1 and 5 minutes, then each half hour; the second fails with the server's words; all others get theirs",
        &["one_refused_recipient_keeps_nobody_else_from_hearing"],
    ),
    (
        "M4",
        "a server that takes connections and says nothing",
        "each step has a limit; rotations go on",
        &["a_server_that_hangs_stops_nothing_but_mail"],
    ),
    (
        "M5",
        "no STARTTLS where it is required, a wrong password, an expired or unknown certificate",
        "nothing is sent, the mail waits, doctor says which and what to do",
        &["a_server_that_cannot_be_used_is_named_with_the_way_out"],
    ),
    (
        "M9",
        "many keys come up at once",
        "one list for each owner; a limit of mails in a minute",
        &[
            "an_owner_of_many_keys_gets_one_list_and_of_few_a_mail_for_each",
            "no_more_mails_leave_in_a_minute_than_are_allowed",
        ],
    ),
    (
        "M11",
        "line breaks and text-direction marks in a project's name, addresses that are none",
        "they are shown, not obeyed; refused",
        &["what_comes_from_outside_acts_nowhere", "only_what_a_server_can_be_told_is_an_address"],
    ),
    (
        "I10, I14",
        "days of downtime, keys rotated early and late, a clock that is years off",
        "each threshold is mailed once for each owner, or passed over for a later one",
        &[
            "a_year_of_three_hundred_projects_is_heard_of_once_each",
            "nobody_is_reminded_by_a_clock_that_is_wrong",
        ],
    ),
];

const TIME_AND_PEOPLE: &[Line] = &[
    (
        "T2",
        "a process sleeps in the middle of a step and wakes up later",
        "its claim is gone, it writes nothing and sends nothing",
        &["seeds_keep_the_invariants"],
    ),
    (
        "T3",
        "change of clocks, leap day, 31st, impossible windows",
        "four hours stay four hours; what never comes is refused",
        &[
            "a_window_keeps_its_length_over_a_change_of_clocks",
            "a_start_that_the_clocks_skip_or_repeat_comes_once",
            "a_year_of_starts_is_what_the_walls_showed",
            "rare_days_come_and_impossible_ones_are_refused",
            "there_is_always_a_next_opening_and_it_is_open",
        ],
    ),
    (
        "T4",
        "the window closes between approval and PATCH",
        "it is not sent; once sent, the window does not matter",
        &["seeds_keep_the_invariants"],
    ),
    (
        "R1",
        "two daemons for one project",
        "one open rotation, one claim",
        &[
            "one_open_rotation_for_a_project",
            "of_many_claimers_one_wins",
            "two_share_two_hundred_rotations_and_each_is_patched_once",
        ],
    ),
    (
        "R2",
        "a daemon dies, or sleeps longer than its lease",
        "another takes over within the lease and 5 s; PATCHes never overlap",
        &[
            "when_one_is_killed_after_its_patch_the_other_finishes_within_a_lease",
            "a_claim_that_ran_out_writes_nothing",
            "a_look_that_takes_longer_than_the_lease_keeps_its_claim",
        ],
    ),
    (
        "R5",
        "a rolling upgrade",
        "the older one stops acting and does not start again",
        &[
            "one_that_is_older_than_the_schema_stops_acting_and_does_not_start",
            "a_newer_database_is_refused_and_left_alone",
        ],
    ),
    (
        "-",
        "daemons with different settings on one database",
        "the second is told which; refused where it matters",
        &["a_second_daemon_with_other_settings_says_which"],
    ),
    (
        "O1",
        "verbs at every state",
        "legal only where they mean something, else 409",
        &[
            "every_verb_is_legal_where_it_means_something",
            "every_role_may_do_what_the_contract_says_and_no_more",
        ],
    ),
    (
        "O2",
        "an approval is withdrawn",
        "before the PATCH it counts no more, afterwards it is refused",
        &["a_yes_can_be_taken_back_until_a_patch_leaves", "seeds_keep_the_invariants"],
    ),
    (
        "O3",
        "settings change during a rotation",
        "the rotation keeps the rules it was proposed under",
        &["a_rotation_keeps_the_rules_it_was_proposed_under"],
    ),
    (
        "O4",
        "a project is removed during a rotation",
        "refused until it is over",
        &["two_people_rotate_a_key_from_the_command_line"],
    ),
];

const HOOKS: &[Line] = &[
    (
        "C11",
        "killed while events arrive",
        "what was answered with 202 is on disk; the rest is sent again by its sender",
        &["killed_at_any_instant_it_has_what_it_said_to_have"],
    ),
    (
        "W1, W2",
        "repeated, replayed, out of order",
        "one proposal; an alarm is told once; what was turned down stays turned down",
        &[
            "a_new_version_becomes_one_proposal",
            "an_alert_that_is_open_pages_once_and_its_end_does_not",
            "what_the_others_send_is_understood_and_what_they_forge_is_not",
        ],
    ),
    (
        "W3",
        "forged: wrong or no proof, another algorithm, audience, issuer, identity, topic, time",
        "401, and nothing is stored but a count",
        &[
            "a_token_of_entra_is_event_grids_or_it_is_nobodys",
            "a_token_of_google_is_our_pushers_or_it_is_nobodys",
            "amazon_sns_speaks_for_one_topic_and_one_authority",
            "atlas_signs_its_alerts_and_nothing_else_is_believed",
            "standard_webhooks_hold_to_the_public_vector",
        ],
    ),
    (
        "W4",
        "too large, endless, cut short, nested too deep, no text",
        "413, 408 or 400; the sender's own odd shapes are taken",
        &["a_body_has_a_size_and_a_time", "an_endless_head_is_refused", "an_alert_may_have_any_shape"],
    ),
    (
        "W5",
        "thousands of silent connections, slow heads, slow bodies",
        "those silent for longest make room; who speaks is answered",
        &[
            "silent_connections_make_room_for_those_who_speak",
            "slow_bodies_make_room_and_a_line_in_use_is_kept",
        ],
    ),
    (
        "W6",
        "a flood of true events about one project",
        "one look",
        &["a_flood_about_one_project_is_one_look"],
    ),
    (
        "W7",
        "a hook's own secret is rotated",
        "both count meanwhile, without a restart",
        &["a_hooks_secret_changes_without_a_restart", "atlas_signs_its_alerts_and_nothing_else_is_believed"],
    ),
    (
        "W8",
        "an event that never comes",
        "the key service is asked every six hours, where the project names a lookup; elsewhere reminders of age still come",
        &["the_poll_finds_what_no_event_told", "the_poll_finds_what_no_event_told_on_postgres"],
    ),
    (
        "W9",
        "about a project or key that nobody tracks",
        "202, counted, no effect",
        &["what_is_not_new_is_not_proposed", "somebody_elses_system_may_ask_for_a_rotation"],
    ),
    (
        "W10",
        "a handshake that points elsewhere",
        "nothing is visited but a listed host",
        &[
            "a_subscription_is_confirmed_where_the_topic_lives_and_nowhere_else",
            "consent_to_a_subscription_is_given_to_who_knows_the_secret",
        ],
    ),
    (
        "W11",
        "wrong secrets in a row from one address",
        "that address waits (429), nothing of it is compared; the sender from elsewhere passes",
        &["a_guesser_is_slowed_down_and_the_sender_is_not", "only_a_configured_proxy_names_the_client"],
    ),
    (
        "W12",
        "a secret under 16 characters",
        "that hook answers 503 and is named everywhere; the daemon and its other hooks go on",
        &["a_short_secret_stops_its_hook_and_nothing_else"],
    ),
    (
        "W13",
        "another source and id that join to the same text",
        "two events",
        &["different_texts_never_make_the_same_id"],
    ),
    (
        "W14",
        "an issuer's keys cannot be fetched for days; a token for a year",
        "keys serve for a day, then 503; 401",
        &[
            "keys_are_not_trusted_for_ever_when_their_issuer_cannot_be_reached",
            "a_token_of_google_is_our_pushers_or_it_is_nobodys",
        ],
    ),
    (
        "-",
        "an event is late and names a version that is not the newest",
        "the key service is asked, and the newest usable one is proposed",
        &["an_event_only_says_where_to_look"],
    ),
    (
        "-",
        "the key service may not be asked, is walled off, or takes no log-in",
        "people are told in its own words; nothing is proposed blindly, and nothing is stopped",
        &["a_look_up_that_fails_says_what_is_missing_and_stops_nothing"],
    ),
    (
        "-",
        "a key goes bad between the approvals and the PATCH",
        "held and told; goes on when it is fixed",
        &["a_key_that_goes_bad_after_the_approvals_is_not_sent_until_it_is_fixed"],
    ),
    (
        "-",
        "the policy may agree by itself",
        "only to what the key service confirms, with every check passed, once a day",
        &["the_policy_agrees_only_to_what_was_confirmed_and_once_a_day"],
    ),
    (
        "-",
        "Atlas cannot be read when an event comes",
        "the event waits and is followed later",
        &["a_hint_waits_until_atlas_can_be_asked"],
    ),
];

const STRANGERS: &[Line] = &[
    (
        "S1",
        "TLS handshakes that hang, by the hundred",
        "they are slow heads: the oldest make room, each ends after ten seconds; authenticated connections stay",
        &[
            "handshakes_that_hang_are_slow_heads_and_keep_nobody_out",
            "the_connection_silent_for_longest_goes_and_an_authenticated_one_stays",
        ],
    ),
    (
        "S2",
        "a certificate that does not fit its key, has expired, is not valid yet, cannot be read; a key that others can read",
        "refused at start and by `config check` with the way out; at a reload the old one stays in use",
        &[
            "bad_certificates_and_keys_are_refused_with_the_way_out",
            "a_hangup_takes_a_new_certificate_and_keeps_the_old_one_where_the_new_one_is_bad",
        ],
    ),
    (
        "S3",
        "plain HTTP for other machines",
        "refused unless a proxy is named",
        &["plain_http_for_other_machines_needs_a_proxy_that_is_named"],
    ),
    (
        "S4",
        "wrong and revoked tokens in a flood",
        "counted, a few log lines, one notice a day for a revoked token; valid tokens pass",
        &["refused_senders_are_counted_and_a_revoked_token_is_told_once"],
    ),
    (
        "S5",
        "a token is revoked while it reads a stream",
        "the stream ends within seconds, others go on",
        &["a_stream_ends_with_the_token_that_opened_it"],
    ),
    (
        "S6",
        "names with hidden characters; hundreds of owners",
        "shown as escapes everywhere; refused with the rule",
        &[
            "hidden_characters_are_shown_and_others_stay",
            "json_shows_no_hidden_characters_and_means_the_same",
            "lines_show_hidden_characters",
            "names_and_owners_are_bounded_and_a_refusal_names_the_rule",
        ],
    ),
    (
        "S7",
        "a key, secret or database file that others may open",
        "refused with the command that closes it",
        &["files_that_others_may_open_are_refused_with_the_command_that_closes_them"],
    ),
    (
        "S8",
        "a row of the database is broken",
        "each list shows its id and the other rows",
        &["every_list_shows_a_corrupt_row_by_its_id"],
    ),
];

const SEALS: &[Line] = &[
    (
        "-",
        "somebody edits, invents or puts back a rotation, a vote, a project or a token in the database",
        "no new key is sent; the row is named, people are paged, only `close` and a sealed roll-back are left",
        &[
            "no_edit_of_the_database_sends_a_key_on_sqlite",
            "no_edit_of_the_database_sends_a_key_on_postgres",
            "tokens_that_are_written_or_revived_by_hand_let_nobody_in",
            "no_adversary_who_writes_the_database_has_a_key_sent",
            "people_close_what_was_tampered_with_and_nothing_else_goes_on",
        ],
    ),
    (
        "-",
        "somebody edits, shortens or empties the audit log",
        "no new key is sent; looking, paging and roll-backs go on",
        &[
            "no_edit_of_the_log_sends_a_key_or_hides_a_danger_on_sqlite",
            "no_edit_of_the_log_sends_a_key_or_hides_a_danger_on_postgres",
            "edits_beside_the_running_daemon_send_nothing_and_are_named",
            "a_log_that_goes_on_under_another_key_sends_nothing",
            "a_running_roll_back_arrives_though_the_log_and_the_project_are_edited",
            "a_freeze_stops_new_keys_and_nothing_else",
        ],
    ),
    (
        "-",
        "somebody edits a delay, who is barred, whose a token was, or what was announced; or removes a project",
        "no vote and no loosened rule counts by it; it is named",
        &[
            "who_changed_the_owners_stays_barred_whatever_the_tables_say",
            "a_tightening_that_somebody_wrote_is_not_undone",
            "a_delay_that_somebody_wrote_shortens_nothing",
            "an_announcement_that_did_not_leave_as_it_was_written_announces_nothing",
            "whose_a_revoked_token_was_is_not_what_somebody_wrote_later",
            "a_row_that_somebody_removed_is_named",
            "no_row_that_decides_keeps_a_key_from_being_read_when_it_cannot_be",
        ],
    ),
    (
        "-",
        "the database is replaced: by an older copy, with its epoch file or without, an empty one, another installation's",
        "nothing is sent until it is accepted, and keys go on being watched; another installation's is refused",
        &[
            "another_database_in_its_place_sends_nothing",
            "a_backup_that_lacks_one_answer_is_not_acted_on",
            "what_was_answered_in_doubt_is_not_lost_when_the_older_database_comes_back",
        ],
    ),
    (
        "-",
        "database and epoch file are replaced by old copies",
        "the end of the log that was mailed and signed the day before shows it",
        &[
            "the_end_of_the_log_is_signed_and_told_once_a_day",
            "the_installation_key_is_made_rotated_and_replaced",
        ],
    ),
    (
        "-",
        "a voter's token is revoked before the PATCH",
        "the vote is void, and the rotation waits for another one",
        &["votes_of_a_revoked_token_are_void_until_the_patch"],
    ),
    (
        "-",
        "the installation key is lost, exposed or another one's; the database lost its seals",
        "refused or served in doubt, with the way out",
        &[
            "the_installation_key_is_made_rotated_and_replaced",
            "a_file_that_is_no_key_or_that_others_read_is_refused_with_the_way_out",
            "a_database_that_lost_its_seals_is_served_and_believed_only_when_it_is_accepted",
        ],
    ),
];

const NOT_COVERED: &[&str] = &[
    "W10: Amazon's and Microsoft's own hosts are never called from a test; which host would be is what is tested.",
    "M6: bounces that come as mails days later are not read.",
    "A19: a key that another person sets between our look and our PATCH, less than a second, is overwritten. People are told \
     when Atlas' event feed shows it.",
    "D1, D13: a second program that writes into the SQLite file, and a reader that holds back its checkpoints for hours.",
    "R4: two installations of Keywheel on one Atlas project see each other's keys as drift, and nothing more.",
    "T1: a clock that jumps by years. Skew against Atlas and against the database holds PATCHes; deadlines that run at that \
     instant follow the wall clock.",
    "Power loss is not simulated; what is tested is that the setting which covers it is in force.",
    "Real Atlas and real key services. Everything here runs against a simulator written from what is known of them.",
];

fn lines(page: &mut String, lines: &[Line]) {
    page.push_str("\n| | what goes wrong | what happens then | shown by |\n|---|---|---|---|\n");
    for (id, wrong, then, tests) in lines {
        let tests: Vec<_> = tests.iter().map(|it| format!("`{it}`")).collect();
        writeln!(page, "| {id} | {wrong} | {then} | {} |", tests.join(", ")).unwrap();
    }
}

fn page() -> String {
    let mut page = String::from(
        "# Reliability\n\nWhat can go wrong, what Keywheel does then, and which test shows it. This page is written by the tests\n\
         (`KEYWHEEL_BLESS=1 cargo nextest run reliability`), and a test fails when it is out of date.\n\n\
         ## What must hold\n\n",
    );
    for (id, text) in INVARIANTS {
        writeln!(page, "- **{id}** {text}").unwrap();
    }
    let rows = rows();
    let cases = rows.len() * COLUMNS.len();
    write!(
        page,
        "\nThey are judged from the log of a simulated world after every step: in the named grid below, in a random search\n\
         (`KEYWHEEL_SEEDS=100000 cargo nextest run seeds_keep`), and in part for the real binary under SIGKILL. Lies told to the\n\
         engine show that the judge sees what a broken program would do (`the_named_grid_catches_each_lie`,\n\
         `the_search_catches_a_lie_within_a_few_hundred_seeds`).\n\n\
         ## The grid: {} faults of Atlas and none, times {} instants of death and none, on 2 databases: {} cases\n\n\
         The engine and the store are the real ones; time, Atlas and the kills are scripted\n\
         (`every_fault_times_every_kill_on_sqlite`, `every_fault_times_every_kill_on_postgres`). The process ends:\n\n\
         | | when |\n|---|---|\n",
        rows.len() - 1,
        COLUMNS.len() - 1,
        cases * 2,
    )
    .unwrap();
    for column in COLUMNS {
        writeln!(page, "| {} | {} |", column.id, column.instant).unwrap();
    }
    page.push_str(
        "\nHowever the process ends, each fault leads to the same end. Where it is `needs_operator`, people were paged in time, and\n\
         the rotation stays as it is until somebody decides.\n\n\
         | | what Atlas or the key does | how the rotation ends | over real HTTP, in part |\n|---|---|---|---|\n",
    );
    for row in &rows {
        let tests = OVER_HTTP.iter().find(|(id, _)| *id == row.id).map_or(&[][..], |it| it.1);
        let tests: Vec<_> = tests.iter().map(|it| format!("`{it}`")).collect();
        writeln!(page, "| {} | {} | `{}` | {} |", row.id, row.fault, row.end, tests.join(", ")).unwrap();
    }
    page.push_str("\n## Crashes and databases\n");
    lines(&mut page, DATABASE);
    page.push_str("\n## Mail\n");
    lines(&mut page, MAIL);
    page.push_str("\n## Hooks\n");
    lines(&mut page, HOOKS);
    page.push_str("\n## Strangers\n");
    lines(&mut page, STRANGERS);
    page.push_str("\n## Who writes the database\n");
    lines(&mut page, SEALS);
    page.push_str("\n## Time, daemons, people\n");
    lines(&mut page, TIME_AND_PEOPLE);
    page.push_str("\n## Not covered\n\n");
    for text in NOT_COVERED {
        writeln!(page, "- {text}").unwrap();
    }
    page
}

fn sources(folder: &Path, all: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, all);
        } else if path.extension().is_some_and(|it| it == "rs") {
            all.push_str(&std::fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
fn the_reliability_page_says_what_the_tests_do() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = page();
    let mut all = String::new();
    sources(&root.join("tests"), &mut all);
    sources(&root.join("src"), &mut all);
    let is_name =
        |it: &&str| it.matches('_').count() > 2 && it.chars().all(|c| c == '_' || c.is_alphanumeric());
    let named = page.split('`').skip(1).step_by(2).filter(is_name);
    let missing: Vec<_> = named.filter(|name| !all.contains(&format!("fn {name}("))).collect();
    assert!(missing.is_empty(), "tests that are not there: {missing:?}");
    let file = root.join("docs/reliability.md");
    if std::env::var_os("KEYWHEEL_BLESS").is_some() {
        std::fs::write(&file, &page).unwrap();
    }
    let written = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(written == page, "docs/reliability.md is out of date; KEYWHEEL_BLESS=1 writes it anew");
}
