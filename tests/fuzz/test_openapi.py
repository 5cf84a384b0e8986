"""The door against its own description: what /openapi.json says may be sent, what it does not, and by whom."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.checks import CheckFunction, not_a_server_error
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from gateway.http.openai.manner import OPENAI
from gateway.http.routes import TABLE, Route
from tests.e2e.house import House
from tests.fuzz.conftest import LONG, TOKEN

EXAMPLES = 300 if LONG else 5
TOKEN_EXAMPLES = 20 if LONG else 2
CALL_S = 60.0
"""More than any deadline of the door: an answer that does not come is a fault."""
NAMES = {
    "name": ("notebook", "switch", "madre", "nobody"),
    "actor": ("notebook", "operator_backend", "switch", "madre", "tentaculo_link", "nobody"),
    "verb": ("list_lines", "write", "describe", "list_sessions", "chat", "nothing", "get_actor"),
    "fact": ("jotted", "happened"),
}
"""Generated names are nobody's."""


SURPRISES = (500, 502)
"""What no request may bring about; of the others the description says which may be."""
EXCLUDED: dict[str, tuple[CheckFunction, ...]] = {
    "operator_metrics": (negative_data_rejection,),  # query parameters that nobody knows are not looked at
    "usage": (negative_data_rejection,),  # as above
    "events": (negative_data_rejection,),  # as above
    "events_stream": (negative_data_rejection,),  # as above
    "dlq": (negative_data_rejection,),  # as above
    "dlq_letter": (negative_data_rejection,),  # as above
    "call": (positive_data_acceptance,),  # whether a body fits says the card of the actor
    "publish": (positive_data_acceptance,),  # as above
    "openai_embeddings": (positive_data_acceptance,),  # how many numbers a vector has says the model
    "set_provider": (positive_data_acceptance,),  # what a line of providers.toml may say says the actor
    "start_replay": (positive_data_acceptance,),  # that a range has an end behind its beginning, no schema says
}
WORTHLESS = {"missing": 401, "empty": 401, "wrong": 403, "unknown": 403, "revoked": 403}


def takes_anything(route: Route) -> bool:
    """Else there is nothing that could be wrong."""
    return bool(set(route.parameters) & set(NAMES) or route.query or route.takes or route.any_object)


class Door:
    """`tokens`: by what they are worth."""

    def __init__(self, home: House) -> None:
        self.session = requests.Session()
        self.session.trust_env = False
        document = self.session.get(f"{home.door}/openapi.json", timeout=CALL_S).json()
        for operation in (one for path in document["paths"].values() for one in path.values()):
            del operation["security"]  # tokens are these tests' own business
        self._schema = schemathesis.openapi.from_dict(document)
        self._schema.config.update(base_url=home.door)
        revoked, text = home.tokens.new()
        home.tokens.revoke(revoked.id)
        self.tokens = {"missing": None, "empty": "", "wrong": "wrong", "unknown": f"vx11_{'0' * 8}_{'a' * 43}", "revoked": text}

    def operation(self, route: Route) -> APIOperation:
        return self._schema.find_operation_by_id(route.name)

    def tell(self, case: Case, token: str | None, *, but: Sequence[CheckFunction] = ()) -> int:
        """Ask, and hold the answer against the description with all checks `but` these; the status."""
        headers = {} if token is None else {"X-VX11-Token": token}
        answer = case.call_and_validate(
            session=self.session, headers=headers, timeout=CALL_S, excluded_checks=[not_a_server_error, *but]
        )
        assert answer.status_code not in SURPRISES, answer.text
        return int(answer.status_code)


@pytest.fixture(scope="module")
def door(home: House) -> Iterator[Door]:
    made = Door(home)
    yield made
    made.session.close()


@st.composite
def cases(draw: st.DrawFn, route: Route, operation: APIOperation, mode: GenerationMode) -> Case:
    """Half of them name somebody who exists."""
    known = {name: draw(st.sampled_from(NAMES[name])) for name in route.parameters if name in NAMES}
    other_faults = route.query or route.takes or route.any_object
    named = known if (mode.is_positive or other_faults) and draw(st.booleans()) else {}
    case: Case = draw(operation.as_strategy(generation_mode=mode, path_parameters=named or None))
    return case


def tried(examples: int):
    return settings(max_examples=examples, derandomize=not LONG, suppress_health_check=list(HealthCheck), database=None)


ASKED = [(route, mode) for route in TABLE for mode in GenerationMode if mode.is_positive or takes_anything(route)]
GUARDED = [route for route in TABLE if not route.is_open]


@pytest.mark.parametrize(("route", "mode"), ASKED, ids=lambda one: getattr(one, "name", "").lower())
def test_every_answer_is_one_that_is_described(door: Door, route: Route, mode: GenerationMode) -> None:
    """What fits is done or refused for a reason that is named there; what does not fit is refused."""

    @tried(EXAMPLES)
    @given(case=cases(route, door.operation(route), mode))
    def told(case: Case) -> None:
        door.tell(case, TOKEN, but=EXCLUDED.get(route.name, ()))

    told()


@pytest.mark.parametrize("worth", WORTHLESS)
@pytest.mark.parametrize("route", GUARDED, ids=lambda route: route.name)
def test_without_a_good_token_nothing_else_is_looked_at(door: Door, route: Route, worth: str) -> None:
    @tried(TOKEN_EXAMPLES)
    @given(case=cases(route, door.operation(route), GenerationMode.POSITIVE))
    def refused(case: Case) -> None:
        status = 401 if route.manner is OPENAI else WORTHLESS[worth]
        assert door.tell(case, door.tokens[worth], but=[positive_data_acceptance]) == status

    refused()


def test_a_call_of_what_only_hosts_may_say_is_refused_at_once(home: House) -> None:
    """The server would drop it without a word, and the door would wait for its whole deadline."""
    for path in ("/call/madre/register", "/events/madre/started", "/events/power/slept"):
        answer = asyncio.run(home.post(path, {}))
        assert (answer.status, answer.json["error"]) in {(403, "forbidden"), (404, "not_found")}, path
