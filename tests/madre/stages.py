"""A power machine brought into each of its states, by the moves that lead there."""

from __future__ import annotations

from collections.abc import Sequence

from actors.madre.effects import Effect, Held
from actors.madre.power import BURIAL_S, GIVE_UP_S, Power
from schemas.power import ActorRecord

NOW = 1_000.0
EPOCH = 3
ID = "echo-3-1"
RUN = "run-a"


def request(verb: str = "say", **circumstances: object) -> Held:
    id_ = str(circumstances.pop("request_id", verb))
    made = {"expires": NOW + 4.5, "arrived": NOW, "reply": f"inbox.{id_}", "body": b"{}", "headers": {}, **circumstances}
    return Held(verb=verb, request_id=id_, **made)  # type: ignore[arg-type]


def record(**fields: object) -> ActorRecord:
    return ActorRecord.model_validate({"actor": "echo", "epoch": EPOCH, **fields})


def kinds(effects: Sequence[Effect]) -> list[str]:
    return [type(effect).__name__ for effect in effects]


def prove(power: Power, now: float = NOW) -> list[Effect]:
    """The server has taken the stand-in's last word."""
    return power.proven(power.generation, now)


def dormant() -> Power:
    power = Power("echo", epoch=EPOCH, revision=7)
    power.adopt(record(), 7, NOW)
    prove(power)
    return power


def waking(*, held: Sequence[Held] = ()) -> Power:
    power = dormant()
    for one in held:
        power.knock(one, NOW)
    if not held:
        power.wake(NOW, "asked")
    return power


def handover(*, held: Sequence[Held] = (), acked: bool = True) -> Power:
    power = waking(held=held)
    power.active(power.id, RUN, NOW, revision=8, epoch=EPOCH)
    if acked:
        for one in held:
            power.acked(one.n, NOW)
    return power


def active(*, held: Sequence[Held] = (), acked: bool = True) -> Power:
    power = handover(held=held, acked=acked)
    prove(power)
    power.swapped("active", 9, NOW)
    return power


def opening(*, recall: bool = True) -> Power:
    """Draining; the stand-in is not yet proven."""
    power = active()
    power.sleep("idle", recall=recall)
    return power


def draining(*, recall: bool = True) -> Power:
    power = opening(recall=recall)
    prove(power)
    return power


def staying() -> Power:
    """Draining, called back by a request."""
    power = draining()
    power.knock(request("wait"), NOW)
    return power


def found() -> Power:
    """Adopting; the stand-in is not yet proven."""
    power = Power("echo", epoch=EPOCH, revision=7)
    power.adopt(record(state="active", owner=RUN, instance=ID, host="h", pid=5, born=2.0), 7, NOW)
    return power


def adopting() -> Power:
    power = found()
    prove(power)
    return power


def burying() -> Power:
    power = active()
    power.exited(power.id, RUN, NOW, "it crashed")
    return power


def failed() -> Power:
    power = waking()
    late = NOW + GIVE_UP_S
    power.tick(late)
    power.read(record(), 7, late)
    power.swapped("void", 8, late)
    power.swapped("failed", 9, late)
    return power


STAGES = {
    "dormant": dormant,
    "waking": waking,
    "handover": handover,
    "active": active,
    "opening": opening,
    "draining": draining,
    "staying": staying,
    "found": found,
    "adopting": adopting,
    "burying": burying,
    "failed": failed,
}
OWNED = ("handover", "active", "opening", "draining", "staying", "found", "adopting")


def bury(power: Power, revision: int, now: float = NOW) -> list[Effect]:
    """The burial is due, and the record is released."""
    power.tick(now + BURIAL_S)
    return power.swapped("release", revision, now + BURIAL_S)


def crash(power: Power, now: float = NOW) -> list[Effect]:
    """One life of an instance that ends before it has answered anything, while somebody waits."""
    power.active(power.id, f"run-{now}", now, revision=power.revision + 1, epoch=EPOCH)
    power.exited(power.id, f"run-{now}", now, "it crashed")
    power.wake(now, "asked")
    return bury(power, power.revision + 1, now)
