"""The fault matrix: which fault is shown by which tests, here and elsewhere, so that none is shown twice."""

from __future__ import annotations

FAULTS: dict[str, tuple[str, ...]] = {
    "F1 the bus server is killed, and away for 0 to 5 s": (
        "tests/torture/test_faults.py::test_killed_processes_break_no_promise",
        "tests/faults/test_server.py::test_the_server_is_killed_and_away_for_a_while",
        "tests/e2e/test_durable_events.py::test_events_are_stored_and_handled_through_the_death_of_the_server",
        "tests/bus/test_pull.py::test_a_killed_server_loses_no_acknowledged_event_and_work_goes_on_within_two_seconds",
    ),
    "F2 the gateway is killed with its hands full": (
        "tests/torture/test_faults.py::test_through_the_gateway_each_request_has_an_answer_or_a_clear_error",
        "tests/faults/test_gateway.py::test_who_asks_again_with_the_same_key_after_the_gateway_died_gets_the_answer_of_the_first",
        "tests/e2e/test_faults.py::test_a_stream_of_events_goes_on_where_it_was_cut_by_the_death_of_the_gateway",
    ),
    "F3 madre is killed: idle, during a wake, during a sleep, between activation and spawn": (
        "tests/torture/test_alone.py::test_while_madre_is_dead_the_awake_go_on_and_the_next_one_takes_them_over",
        "tests/torture/test_alone.py::test_what_madre_held_when_she_died_is_served_by_the_next_one",
        "tests/faults/test_moments.py::test_a_death_at_the_moment",
        "tests/faults/test_moments.py::test_who_stood_still_meanwhile_does_no_harm_afterwards",
        "tests/faults/test_moments.py::test_madre_dies_when_she_has_read_of_a_claim_that_she_had_not_heard_of",
    ),
    "F4 an actor is killed before its effect, and after it before its answer": (
        "tests/faults/test_moments.py::test_a_death_at_the_moment",
        "tests/torture/test_alone.py::test_what_an_instance_had_begun_when_it_died_ends_crashed_and_is_not_begun_again",
        "tests/e2e/test_durable_events.py::test_an_event_whose_handler_dies_is_handled_again",
    ),
    "F5 redis is dead or stands still": (
        "tests/faults/test_redis.py::test_a_hundred_turns_while_redis_is_away",
        "tests/e2e/test_faults.py::test_without_redis_the_session_list_says_so",
        "tests/bus/test_cache.py::test_a_cancelled_call_never_gives_its_answer_to_another",
    ),
    "F7 a process stands still": (
        "tests/torture/test_alone.py::test_a_short_stop_of_an_actor_changes_nothing",
        "tests/torture/test_alone.py::test_a_long_stop_of_an_actor_is_its_end",
        "tests/torture/test_faults.py::test_frozen_processes_break_no_promise",
        "tests/faults/test_server.py::test_the_server_stands_still_for_a_while",
    ),
    "F8 more comes than can be taken": (
        "tests/faults/test_flood.py::test_a_flood_is_answered_or_refused_and_never_dropped",
        "tests/bus/test_responder.py::test_beyond_limit_and_queue_it_is_busy_and_surely_not_executed",
        "tests/bus/test_client_streams.py::test_a_slow_reader_is_not_cut_off",
    ),
    "F11 activations and other words of power come twice, late, or in another order": (
        "tests/faults/test_stale.py::test_a_third_of_all_words_comes_again_up_to_two_seconds_later",
        "tests/faults/test_stale.py::test_all_that_was_said_before_another_came_is_said_again_to_it",
        "tests/bus/test_zygote_and_host.py::test_a_known_activation_is_told_again_and_not_started_again",
        "tests/bus/test_instance.py::test_an_old_madres_orders_are_ignored",
    ),
    "F12 a thousand requests at once to one sleeper": (
        "tests/torture/test_cycles.py::test_sixty_cycles_and_a_storm_lose_nothing_and_double_nothing",
    ),
    "F16 a process is told to end under load": (
        "tests/faults/test_terminate.py::test_who_is_told_to_end_loses_nothing",
        "tests/faults/test_terminate.py::test_an_actor_that_is_told_to_end_while_madre_is_dead_ends_when_she_is_back",
        "tests/faults/test_gateway.py::test_told_to_end_it_answers_what_is_under_way_and_ends_its_streams",
        "tests/e2e/test_stop.py::test_the_door_is_shut_before_the_house",
    ),
    "F17 links stop one by one and heal in another order": (
        "tests/faults/test_links.py::test_links_are_stopped_one_by_one_and_healed_in_another_order",
    ),
    "F18 more callers than descriptors": (
        "tests/faults/test_gateway.py::test_with_more_callers_than_descriptors_it_turns_some_away_and_recovers",
        "tests/gateway/test_server.py::test_more_connections_than_there_are_places_are_turned_away",
    ),
}
