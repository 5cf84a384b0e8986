"""`doctor --contract`: one executable check for each claim that VX11 makes, on the running system."""

from __future__ import annotations

import ipaddress
import secrets
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from gateway.cli import scan
from gateway.cli.check import Check, Finding, examine, failed, passed, skipped
from gateway.cli.desk import run_async
from gateway.cli.house import CORRELATION, SAID, Answered, House, open_house
from gateway.cli.remote import card_of, request
from schemas.errors import Failure
from schemas.madre import ActorStatus, GetActor, GetPolicy, ListActors, RunMaintenance, SetGate
from schemas.operator_backend import DeleteSession, GetSession

if TYPE_CHECKING:
    from gateway.cli.desk import Desk

STATUS = "/operator/api/status"
ALWAYS = {"madre", "redis", "tentaculo_link"}
KNOWN_ONCE = ("vx11-local-token", "vx11-test-token", "test-token-vx11", "vx11-operator-test-token")
"""Tokens that the original VX11 shipped with; none may open anything."""
NAMED = 3
"""So many findings are named; the rest are counted."""
SHAPES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    (
        "GET",
        "/vx11/status",
        ("ok", "status", "module", "version", "timestamp", "mode", "policy", "ports", "modules", "summary"),
    ),
    ("GET", STATUS, ("ok", "status", "policy", "degraded", "core_services", "optional_services", "data")),
    ("GET", "/operator/api/config", ("ok", "data")),
    ("GET", "/operator/api/metrics", ("ok", "metrics", "count", "data")),
    ("GET", "/operator/api/events", ("events", "total", "has_more", "data")),
    ("POST", "/operator/capabilities", ("ok", "data")),
    ("GET", "/operator/capabilities", ("ok", "data")),
    ("GET", "/api/map", ("ok", "nodes", "edges", "counts", "timestamp")),
    ("GET", "/madre/power/status", ("status", "services", "policy", "mode", "windows")),
    (
        "GET",
        "/madre/power/policy/solo_madre/status",
        ("status", "policy_active", "running_services", "expected_services"),
    ),
)
"""Looks that every client relies on, with the fields that must be there."""
CHAT_FIELDS = (
    ("response", str),
    ("model_used", str),
    ("model", str),
    ("latency_ms", (int, float)),
    ("correlation_id", str),
    ("session_id", str),
    ("message_id", str),
    ("provider", str),
    ("status", str),
    ("degraded", bool),
)


def examine_contract(desk: Desk) -> list[tuple[str, Finding]]:
    """Raises Failure("unavailable") when VX11 does not run on this machine."""

    async def whole() -> list[tuple[str, Finding]]:
        async with open_house(desk.settings) as house:
            return await examine(CHECKS, house)

    return run_async(whole())


async def single_entrypoint(house: House) -> Finding:
    """Of all sockets on which a process of ours listens, only the gateway's may be reached from outside."""
    import psutil

    from gateway.cli.process import processes

    doors = {urlsplit(url).port for url in (house.run.http_url, house.run.control_url)}
    inside = {urlsplit(url).port for url in (house.run.nats_url, house.run.redis_url)}
    listening: set[tuple[str, int, str]] = set()
    for seen in processes(house.run, {}):
        try:
            sockets = psutil.Process(seen.pid).net_connections(kind="inet")
        except psutil.AccessDenied:
            return skipped(f"this system does not show the sockets of {seen.name} (pid {seen.pid})")
        except psutil.NoSuchProcess:
            continue
        listening |= {(one.laddr.ip, one.laddr.port, seen.name) for one in sockets if one.status == psutil.CONN_LISTEN}
    strange = [
        f"{name} on {ip}:{port}"
        for ip, port, name in sorted(listening)
        if port not in doors and not (port in inside and ipaddress.ip_address(ip).is_loopback)
    ]
    if strange:
        return failed(f"also listening: {', '.join(strange)}")
    health = await house.ask("GET", "/health", token="")
    if health.status != 200:
        return failed(f"GET /health at {house.run.http_url} answers {health.status}", "vx11 logs tentaculo_link")
    return passed(f"{house.run.http_url} is the only door; {len(listening)} sockets looked at")


async def solo_madre_default(house: House) -> Finding:
    """The policy is solo_madre, madre and the gateway agree on it, and the three that it keeps are there."""
    state = await request(house.remote, GetPolicy())
    told = await house.ask("GET", "/madre/power/policy/solo_madre/status")
    if told.status != 200:
        return failed(f"the gateway answers {told.status}: {told.body.get('error', '')}")
    expected = told.body.get("expected_services", ())
    if set(state.expected) != ALWAYS or set(expected) != ALWAYS:
        return failed(f"at rest {', '.join(expected)} should run; it should be {', '.join(sorted(ALWAYS))}")
    if state.policy != "solo_madre":
        return failed(f"the policy is {state.policy}: somebody applied it", "vx11 policy solo_madre")
    observed = told.body.get("running_services", ())
    if missing := ALWAYS - set(observed):
        return failed(f"not running: {', '.join(sorted(missing))}", "vx11 ps")
    return passed(f"policy {state.policy}, mode {state.mode}, running: {', '.join(observed)}")


async def no_hardcoded_secrets(house: House) -> Finding:
    """None in the source; the keys of this home are its own; no token that was ever shipped opens the door."""
    found = scan.secrets()
    if found:
        return failed(_named(found))
    opened = [token for token in KNOWN_ONCE if (await house.ask("GET", STATUS, token=token)).status != 403]
    if opened:
        return failed(f"{len(opened)} of the tokens that the original shipped with are not refused")
    loose = [path.name for path in (house.run.home / "nats").glob("*.nk") if path.stat().st_mode & 0o077]
    if loose:
        return failed(f"others can read {', '.join(loose)}", f"chmod 600 {house.run.home}/nats/*.nk")
    return passed(f"none in {len(scan.files())} source files; {len(KNOWN_ONCE)} once shipped tokens are refused")


async def no_stubs(house: House) -> Finding:
    """No function that only pretends, and behind each verb of madre something that reads its request."""
    found = scan.stubs()
    if found:
        return failed(_named(found))
    card = await card_of(house.remote, "madre")
    deaf: list[str] = []
    for verb in card.verbs:
        try:
            await house.remote.ask(verb.subject, {"no_such_field": True}, timeout=2.0)
        except Failure as failure:
            if failure.code == "invalid":
                continue
        deaf.append(verb.name)
    if deaf:
        return failed(f"madre does not check requests to {', '.join(deaf)}")
    return passed(f"no empty function; {len(card.verbs)} verbs of madre refuse what they do not understand")


async def correlation_flow(house: House) -> Finding:
    """The id that the client chose is in the answer's header, in its body, and in the call record on the bus."""
    answer = await house.chat()
    if answer.status != 200:
        return _no_chat(answer.status, answer.body.get("error"))
    wanted = house.correlation_id
    lost = [
        where
        for where, found in (("header", answer.headers.get(CORRELATION)), ("body", answer.body.get("correlation_id")))
        if found != wanted
    ]
    by_madre = answer.body.get("provider") == "madre" and "operator_backend" in str(answer.body.get("reason"))
    actor = "madre" if by_madre else "operator_backend"
    if await house.record(f"vx11.{actor}.chat") is None:
        lost.append(f"call record of {actor}.chat")
    return (
        failed(f"the id is not in the {', nor in the '.join(lost)}") if lost else passed(f"{wanted} in header, body and record")
    )


async def token_guard(house: House) -> Finding:
    """No token 401, a wrong one 403, two that differ 400, one in the query string is none, the right one 200."""
    wrong = f"vx11_{secrets.token_hex(4)}_{secrets.token_urlsafe(32)}"
    both = {"Authorization": f"Bearer {wrong}"}
    cases = (
        ("no token", 401, await house.ask("GET", STATUS, token="")),
        ("a wrong token", 403, await house.ask("GET", STATUS, token=wrong)),
        ("two tokens", 400, await house.ask("GET", STATUS, headers=both)),
        ("a token in the query", 401, await house.ask("GET", f"{STATUS}?token={house.token}", token="")),
        ("the right token", 200, await house.ask("GET", STATUS)),
    )
    faults = [f"{what} is answered {answer.status}, not {wanted}" for what, wanted, answer in cases if answer.status != wanted]
    if len(faults) == len(cases) - 1:
        return failed("the guard is off: everybody on this machine may do everything", "unset VX11_AUTH_MODE, then vx11 up")
    return failed("; ".join(faults)) if faults else passed("401 without, 403 wrong, 400 for two, 200 right")


async def database_integrity(house: House) -> Finding:
    """What stores there are is looked after by madre, who names those that are not there yet."""
    done = await request(house.remote, RunMaintenance(reason="vx11 doctor --contract"))
    checks = ", ".join(f"{name}: {found}" for name, found in done.checks.items())
    if done.status == "failed":
        return failed(checks or "madre's maintenance failed")
    if not any("integrity" in name for name in done.checks):
        missing = ", ".join(done.missing) or "nothing, which is strange"
        return Finding(
            "later", f'comes with the issue "The vault"; madre looked at {len(done.checks)} stores, missing: {missing}'
        )
    return passed(checks) if done.status == "ok" else failed(checks)


async def dormant_gates(house: House) -> Finding:
    """A sleeper whose gate is closed is not woken, neither by a message nor by HTTP, and the refusal says why."""
    actors = (await request(house.remote, ListActors())).actors
    asleep = [one for one in actors if one.state == "dormant" and one.gate == "on_demand" and not one.gate_pinned]
    if not asleep:
        return skipped("nobody is asleep with an open gate just now", "vx11 policy solo_madre")
    sleeper = asleep[0]
    verb = next((one for one in (await card_of(house.remote, sleeper.name)).verbs if not one.passive), None)
    await request(house.remote, SetGate(name=sleeper.name, gate="closed"))
    try:
        code = await _code(house, verb.subject) if verb else "off_by_policy"
        door = await house.ask("POST", f"/madre/power/service/{sleeper.name}/wake", body={})
        after = (await request(house.remote, GetActor(name=sleeper.name))).status
    finally:
        await request(house.remote, SetGate(name=sleeper.name, gate=sleeper.gate))
    return _judge_gate(sleeper, after, code, door)


async def _code(house: House, subject: str) -> str:
    """How a message to `subject` is answered."""
    try:
        await house.remote.ask(subject, {}, timeout=5.0)
    except Failure as failure:
        return failure.code
    return "ok"


def _judge_gate(before: ActorStatus, after: ActorStatus, code: str, door: Answered) -> Finding:
    if code != "off_by_policy":
        return failed(f"a message to {before.name} with its gate closed is answered {code}")
    label = door.body.get("status", "")
    if door.status != 403 or label != "OFF_BY_POLICY":
        return failed(f"waking {before.name} with its gate closed is answered {door.status} {label}".rstrip())
    if after.state != "dormant" or after.wakes != before.wakes:
        return failed(f"{before.name} woke although its gate was closed")
    return passed(f"{before.name} stayed asleep, 403 OFF_BY_POLICY; its gate is {before.gate} again")


async def real_operator_backend(house: House) -> Finding:
    """What was said is in its history, word for word, and gone once it is deleted."""
    answer = await house.chat()
    if answer.status != 200:
        return _no_chat(answer.status, answer.body.get("error"))
    if answer.body.get("history") == "unavailable":
        return failed(f"it keeps no history: {answer.body.get('reason') or 'Redis is away'}", "vx11 doctor")
    session = await request(house.remote, GetSession(session_id=house.session_id))
    said = [line.text for line in session.lines]
    if said != [SAID, answer.body.get("response")]:
        return failed(f"its history has {len(said)} lines, not the message and the answer")
    await request(house.remote, DeleteSession(session_id=house.session_id))
    try:
        await request(house.remote, GetSession(session_id=house.session_id))
    except Failure as failure:
        if failure.code == "not_found":
            return passed("message and answer were kept, found, and deleted")
        raise
    return failed("a deleted conversation is still there")


async def chat_switch_first(house: House) -> Finding:
    """The call records say whether switch was asked; when another answered, the answer says who and why."""
    answer = await house.chat()
    if answer.status != 200:
        return _no_chat(answer.status, answer.body.get("error"))
    record = await house.record("vx11.switch.chat")
    if record is None:
        return failed("switch was not asked: there is no record of it in this conversation", "vx11 status")
    if not answer.body.get("degraded"):
        return passed(f"switch answered with {answer.body.get('model')} of {answer.body.get('provider')}")
    source, reason = answer.body.get("fallback_source"), answer.body.get("reason")
    if not source or not reason:
        return failed("switch did not answer, and the answer does not say who did and why")
    return passed(f"switch was asked first and said {record.get('code')}; {source} answered")


async def e2e_structure(house: House) -> Finding:
    """Every look has the fields that clients rely on, and looking wakes nobody."""
    before = len(house.activated)
    faults: list[str] = []
    for method, path, fields in SHAPES:
        answer = await house.ask(method, path, body={} if method == "POST" else None)
        missing = [name for name in fields if name not in answer.body]
        if answer.status != 200 or missing:
            faults.append(f"{method} {path}: {answer.status}" + (f", without {', '.join(missing)}" if missing else ""))
    woken = house.activated[before:]
    if woken:
        faults.append(f"looking woke {', '.join(woken)}")
    chat = await house.chat()
    if chat.status == 200:
        wrong = [name for name, kind in CHAT_FIELDS if not isinstance(chat.body.get(name), kind)]
        faults += [f"the chat's answer is wrong in {', '.join(wrong)}"] if wrong else []
    else:
        faults.append(f"the chat answers {chat.status}")
    return (
        failed("; ".join(faults))
        if faults
        else passed(f"{len(SHAPES)} looks and the chat have all their fields; no look woke anybody")
    )


async def hormiguero(house: House) -> Finding:
    return await _ready(house, "hormiguero")


async def shubniggurath(house: House) -> Finding:
    return await _ready(house, "shubniggurath")


async def _ready(house: House, name: str) -> Finding:
    """It exists, can be loaded, and has verbs. It is not woken for this."""
    if name not in {one.name for one in (await request(house.remote, ListActors())).actors}:
        return Finding("later", f"there is no actor {name} yet; it comes with its own issue")
    card = await card_of(house.remote, name)
    if card.error or not card.verbs:
        return failed(card.error or f"{name} has no verbs", f"vx11 logs {name}")
    return passed(f"{name} can be woken: {', '.join(verb.name for verb in card.verbs)}")


def _no_chat(status: int, code: object) -> Finding:
    return failed(f"the chat answers {status} {code or ''}".rstrip(), "vx11 status")


def _named(found: list[str]) -> str:
    rest = f", and {len(found) - NAMED} more" if len(found) > NAMED else ""
    return ", ".join(found[:NAMED]) + rest


CHECKS: tuple[Check[House], ...] = (
    Check("single entrypoint", single_entrypoint),
    Check("solo_madre default", solo_madre_default),
    Check("no hardcoded secrets", no_hardcoded_secrets),
    Check("no stubs", no_stubs),
    Check("token guard", token_guard),
    Check("dormant gates", dormant_gates),
    Check("correlation flow", correlation_flow),
    Check("chat switch-first", chat_switch_first),
    Check("real operator backend", real_operator_backend),
    Check("e2e structure", e2e_structure),
    Check("database integrity", database_integrity),
    Check("hormiguero readiness", hormiguero),
    Check("shubniggurath readiness", shubniggurath),
)
"""In an order in which nobody has been woken yet when the gates are tried."""
