"""Who is asked for what, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.switch.choosing.choice import Choice, Need, Standing, choices, weighed
from actors.switch.choosing.learned import NOTHING, Observed
from actors.switch.configured.providers import Provider
from actors.switch.configured.traits import UNKNOWN, Traits
from schemas.errors import Failure
from schemas.switch import Chat, Turn

NOW = 1_000_000.0
HOME = Provider("home", "http://127.0.0.1:11434/v1", "llama3.2", ("qwen3:8b",))
CLOUD = Provider("cloud", "https://llm.example.org/v1", "big", ("qwen3:8b", "meta/llama"))
SMALL = Provider("local", "", "smollm2", declared=Traits(context=2_048, languages=("en",), tools=False, offline=True))
TWO_MODELS = Provider("a", "http://a/v1", "old", ("new",))
TOOL = {"type": "function", "function": {"name": "clock"}}


def provider(name: str, **declared: Any) -> Provider:
    return Provider(name, f"http://{name}/v1", "m", declared=Traits(**declared))


def asks(text: str = "hello", **fields: Any) -> Chat:
    return Chat(messages=[Turn(role="user", content=text)], **fields)


def seen(answered: int = 0, failed: int = 0, first_s: float = 1.0) -> Observed:
    observed = NOTHING
    for _ in range(failed):
        observed = observed.failed(NOW)
    for _ in range(answered):
        observed = observed.answered(NOW, first_s)
    return observed


def asked(*providers: Provider, seen_of: Mapping[str, Observed] | None = None, **need: Any) -> list[Choice]:
    """`seen_of`: what was observed of the only model of a provider, by its name."""
    known = seen_of or {}
    standings = [Standing(one, observed=partial(lambda name, _: known.get(name, NOTHING), one.name)) for one in providers]
    return choices(standings, Need(need.pop("request", asks()), **need))


def order(*providers: Provider, **given: Any) -> list[str]:
    return [choice.provider.name for choice in asked(*providers, **given)]


def named(wanted: str | None, listed: dict[str, list[str]] | None = None) -> list[tuple[str, str]]:
    standings = [Standing(one, (listed or {}).get(one.name, ())) for one in (HOME, CLOUD)]
    return [(choice.provider.name, choice.model) for choice in choices(standings, Need(asks(model=wanted)))]


# --- a model that was asked for by its name ---


@pytest.mark.parametrize("wanted", [None, "auto"])
def test_without_a_wish_each_provider_is_asked_for_its_own_model_in_their_order(wanted: str | None) -> None:
    assert named(wanted) == [("home", "llama3.2"), ("cloud", "big")]


def test_a_model_is_asked_of_all_that_have_it() -> None:
    assert named("qwen3:8b") == [("home", "qwen3:8b"), ("cloud", "qwen3:8b")]
    assert named("big") == [("cloud", "big")]


def test_a_provider_is_asked_for_its_own_model() -> None:
    assert named("cloud") == [("cloud", "big")]


def test_a_provider_may_be_asked_for_any_model_by_its_full_name() -> None:
    assert named("home/mistral") == [("home", "mistral")]


def test_a_model_with_a_slash_in_its_name_is_a_model() -> None:
    assert named("meta/llama") == [("cloud", "meta/llama")]
    assert named("cloud/meta/llama") == [("cloud", "meta/llama")]


def test_what_a_provider_has_listed_may_be_asked_for() -> None:
    assert named("phi4", {"home": ["phi4"]}) == [("home", "phi4")]


@pytest.mark.parametrize("wanted", ["gpt-9", "nobody/llama3.2", "home/", "/llama3.2", ""])
def test_an_unknown_model_is_not_replaced_by_another(wanted: str) -> None:
    with pytest.raises(Failure, match=r"home/llama3\.2, home/qwen3:8b, cloud/big") as refused:
        named(wanted)
    assert refused.value.code == "not_found"


def test_a_wish_is_not_weighed() -> None:
    """Whoever names a model has chosen; a worse record of the first that has it is no reason to ask another."""
    both = (provider("a"), provider("b"))
    assert order(*both, seen_of={"a": seen(failed=30)}, request=asks(model="m")) == ["a", "b"]


def test_a_wish_that_cannot_be_fulfilled_is_an_error_and_no_other_model() -> None:
    with pytest.raises(Failure, match="local/smollm2 is declared without tools") as refused:
        asked(SMALL, HOME, request=asks(model="local", tools=[TOOL]))
    assert refused.value.code == "invalid"


# --- what a model must have ---


def test_a_model_without_tools_is_not_asked_to_use_them() -> None:
    assert order(provider("a", tools=False), provider("b"), request=asks(tools=[TOOL])) == ["b"]


@pytest.mark.parametrize(("kind", "who"), [("json_schema", ["b"]), ("json_object", ["b"]), ("text", ["a", "b"])])
def test_a_model_without_json_is_not_asked_for_it(kind: str, who: list[str]) -> None:
    assert order(provider("a", json=False), provider("b"), request=asks(response_format={"type": kind})) == who


def test_a_conversation_that_is_too_long_for_one_goes_to_another() -> None:
    assert order(provider("a", context=1_000), provider("b", context=100_000), request=asks("word " * 2_000)) == ["b"]


def test_what_fits_nowhere_is_too_large_and_says_how_much_does() -> None:
    with pytest.raises(Failure, match=r"about 4008 tokens, and 1500 fit") as refused:
        asked(provider("a", context=1_000), provider("b", context=2_000), request=asks("word " * 2_000))
    assert (refused.value.code, refused.value.details) == ("too_large", {"tokens": 4_008, "fits": 1_500})


def test_with_leave_to_trim_only_the_last_turn_must_fit() -> None:
    long = Chat(messages=[Turn(role="user", content="word " * 2_000), Turn(role="user", content="and now?")], trim=True)
    assert order(provider("a", context=1_000), provider("b"), request=long) == ["b", "a"]
    assert order(provider("a", context=1_000), request=long) == ["a"]
    with pytest.raises(Failure, match="too_large"):
        asked(provider("a", context=1_000), request=long.model_copy(update={"trim": False}))


def test_when_no_model_can_do_it_all_are_named_with_what_they_lack() -> None:
    with pytest.raises(Failure, match=r"a/m is declared without tools; b/m is declared without tools") as refused:
        asked(provider("a", tools=False), provider("b", tools=False), request=asks(tools=[TOOL]))
    assert refused.value.code == "invalid"


def test_another_model_of_a_provider_helps_out_when_its_own_cannot() -> None:
    two = Provider(
        "a", "http://a/v1", "old", ("new",), declared=Traits(tools=False), declared_each={"new": Traits(context=8_000)}
    )
    assert [choice.model for choice in asked(two)] == ["old"]
    (choice,) = asked(two, request=asks(tools=[TOOL]))
    assert (choice.model, choice.traits.context) == ("new", 8_000)


# --- what makes one better ---


def test_a_few_failures_do_not_move_a_provider_from_its_place_and_many_do() -> None:
    """The first is the circuit's business, which acts at once and for a short time."""
    both = (provider("a"), provider("b"))
    assert order(*both, seen_of={"a": seen(failed=3)}) == ["a", "b"]
    assert order(*both, seen_of={"a": seen(failed=10)}) == ["b", "a"]


def test_one_that_answers_much_sooner_is_asked_first() -> None:
    both = (provider("a"), provider("b"))
    assert order(*both, seen_of={"a": seen(10, first_s=20.0), "b": seen(10, first_s=0.2)}) == ["b", "a"]
    assert order(*both, seen_of={"a": seen(10, first_s=1.0), "b": seen(10, first_s=0.8)}) == ["a", "b"]


def test_a_free_one_is_asked_before_an_expensive_one() -> None:
    assert order(provider("a", price_in=15.0, price_out=75.0), provider("b")) == ["b", "a"]


def test_one_that_speaks_the_language_is_asked_first_and_the_other_is_not_excluded() -> None:
    both = (provider("a", languages=("en",)), provider("b", languages=("en", "es")))
    assert order(*both, language="es") == ["b", "a"]
    assert order(*both, language="en") == ["a", "b"]
    assert order(*both) == ["a", "b"]


def test_the_small_model_on_this_machine_is_the_last_of_all() -> None:
    worst = provider("worst", languages=("en",), price_in=1_000.0, price_out=1_000.0)
    bad = {"worst": seen(failed=40), "local": seen(40, first_s=0.0)}
    assert order(SMALL, worst, seen_of=bad, language="es", pinned="local/smollm2") == ["worst", "local"]


def test_a_session_keeps_the_model_that_answered_it() -> None:
    both = (provider("a"), provider("b", price_in=30.0))
    assert order(*both) == ["a", "b"]
    assert order(*both, pinned="b/m", seen_of={"b": seen(failed=40)}) == ["b", "a"]


def test_a_provider_that_rests_keeps_its_place() -> None:
    """Whoever asks it is refused at once, and the answer says so; by then it may have rested enough."""
    standings = [Standing(provider("a"), rest=12.0), Standing(provider("b"))]
    assert [choice.provider.name for choice in choices(standings, Need(asks()))] == ["a", "b"]
    assert weighed(standings, Need(asks()))[0].shown().refused == "rests after failures, and may be asked in 12 s"


# --- what is told ---


@pytest.mark.parametrize(
    ("providers", "given", "reason"),
    [
        ([HOME], {}, "the configured order"),
        ([HOME], {"request": asks(model="home")}, "home was asked for"),
        ([provider("a"), provider("b")], {"pinned": "b/m"}, "it has answered in this session before"),
        ([provider("a", price_in=30.0, price_out=30.0), provider("b")], {}, "it costs less than a"),
        ([provider("a", languages=("en",)), provider("b")], {"language": "es"}, "it speaks es, other than a"),
        ([provider("a"), provider("b")], {"seen_of": {"a": seen(failed=20)}}, "it answers more often than a (95% of the time)"),
        (
            [provider("a"), provider("b")],
            {"seen_of": {"a": seen(20, first_s=60), "b": seen(40, first_s=0.4)}},
            "its first word comes sooner than that of a (after 0.6 s)",
        ),
        (
            [provider("a", context=1_000), provider("b")],
            {"request": asks("word " * 2_000)},
            "the configured order; a/m has room for 750 tokens, and this takes about 4008",
        ),
        (
            [provider("a", context=1_000)],
            {
                "request": asks("hi", trim=True).model_copy(
                    update={"messages": [*asks("word " * 2_000).messages, *asks().messages]}
                )
            },
            "the configured order; the oldest turns do not fit into its window",
        ),
        (
            [replace(TWO_MODELS, declared=Traits(tools=False), declared_each={"new": UNKNOWN}), provider("b")],
            {"request": asks(tools=[TOOL])},
            "a could answer with new only; a/old is declared without tools",
        ),
        ([SMALL], {}, "nothing better is configured"),
        ([SMALL, provider("a", tools=False)], {}, "the configured order"),
    ],
)
def test_the_first_choice_says_why_in_words(providers: list[Provider], given: dict[str, Any], reason: str) -> None:
    assert asked(*providers, **given)[0].reason == reason


def test_what_is_written_wrongly_is_why_the_small_model_answers() -> None:
    """Whoever has mistyped a line would look for a fault elsewhere, told that nothing better was configured."""
    (choice,) = asked(SMALL, faults=["[home]: model is missing"])
    assert choice.reason == "nothing better can be asked; [home]: model is missing"


def test_what_the_model_of_the_folder_cannot_do_is_not_blamed_on_the_file() -> None:
    with pytest.raises(Failure) as refused:
        asked(SMALL, request=asks(tools=[TOOL]))
    assert refused.value.message == "no model can do what is asked: local/smollm2 is declared without tools"


def test_the_others_say_that_they_come_after_it() -> None:
    assert [choice.reason for choice in asked(HOME, CLOUD, SMALL)][1:] == ["the next in line", "nothing better can be asked"]


def test_all_models_are_shown_with_their_points_and_what_they_lack() -> None:
    standings = [Standing(provider("a", tools=False)), Standing(HOME), Standing(SMALL)]
    found = [one.shown() for one in weighed(standings, Need(asks(tools=[TOOL])))]
    assert [(one.provider, one.model, one.refused) for one in found] == [
        ("home", "llama3.2", ""),
        ("home", "qwen3:8b", ""),
        ("a", "m", "is declared without tools"),
        ("local", "smollm2", "is declared without tools"),
    ]
    assert found[0].why == (
        "+38 answers 95% of the time (assumed), +13 its first word takes 1.0 s (assumed), "
        "+20 free, or without a declared price, +0 has room for all of it, -10 second in the configured order"
    )
    assert found[0].score == pytest.approx(61.3)
    assert weighed([Standing(HOME)], Need(asks()))[0].shown().why.endswith("+0 first in the configured order")


TRAITS = st.builds(
    Traits,
    context=st.none() | st.integers(300, 10_000),
    languages=st.sampled_from([(), ("en",), ("en", "es")]),
    tools=st.booleans(),
    price_in=st.floats(0, 100),
    offline=st.booleans(),
)
SEEN = st.builds(seen, st.integers(0, 20), st.integers(0, 20), st.floats(0, 100))


@given(
    st.lists(st.tuples(TRAITS, SEEN), min_size=1, max_size=6),
    st.sampled_from(["", "en", "es"]),
    st.sampled_from([None, [TOOL]]),
    st.integers(1, 5_000),
)
def test_whatever_is_known_the_choice_keeps_its_rules(
    found: list[tuple[Traits, Observed]], language: str, tools: list[dict[str, Any]] | None, words: int
) -> None:
    """Each provider at most once, nobody who cannot, the offline ones last, and the same answer each time."""
    standings = [
        Standing(Provider(f"p{n}", f"http://p{n}/v1", "m", declared=traits), observed=partial(lambda seen, _: seen, observed))
        for n, (traits, observed) in enumerate(found)
    ]
    need = Need(asks("word " * words, tools=tools), language)
    able = {one.name for one in weighed(standings, need) if not one.lacks}
    if not able:
        with pytest.raises(Failure) as refused:
            choices(standings, need)
        assert refused.value.code in {"too_large", "invalid"}
        return
    made = choices(standings, need)
    assert {f"{one.provider.name}/{one.model}" for one in made} == able
    assert len(made) == len(able)
    offline = [one.traits.offline for one in made]
    assert offline == sorted(offline)
    assert made == choices(standings, need)
