"""How much room is kept free, and when a server that could not write is started anew: never in a loop, never too soon."""

from __future__ import annotations

import errno
import itertools

import pytest

from bus import space
from bus.mending import CALM_S, PAUSE_FIRST_S, PAUSE_MOST_S, FailedWrites, Mending
from bus.settings import Settings
from bus.space import MIB, Reserve
from bus.supervisor import AGAIN_MOST_S, Supervisor
from schemas.errors import Failure
from schemas.storage import ServerMended, StorageBack, StorageLow

SIGN = (
    "[7] 2026/01/02 03:04:05.678901 [ERR] JetStream stream 'VX11 > VX11_EVENTS' critical write error: no space left on device\n"
)
BOUND = "[7] 2026/01/02 03:04:05.678901 [DBG] JetStream failed to store a msg on stream: maximum bytes exceeded\n"


class Disk:
    """`free` and `size` in MB. Each look is a new one."""

    def __init__(self, free: float, size: float = 100_000) -> None:
        self.free, self.size = free, size
        self.looks = 0

    def __call__(self, folder) -> tuple[int, int]:
        self.looks += 1
        return int(self.free * MIB), int(self.size * MIB)


@pytest.fixture(autouse=True)
def every_look_counts(monkeypatch, request):
    if "once_a_second" not in request.node.name:
        monkeypatch.setattr(space, "LOOK_S", 0.0)


def test_half_a_gigabyte_is_kept_and_of_a_small_disk_a_twentieth(tmp_path):
    assert Reserve(tmp_path, measure=Disk(1_000)).room().reserve == 512 * MIB
    assert Reserve(tmp_path, measure=Disk(50, size=100)).room().reserve == 5 * MIB
    assert Reserve(tmp_path, 2_000, measure=Disk(50, size=100)).room().reserve == 2_000 * MIB


def test_what_is_refused_says_how_much_there_is_and_what_to_do(tmp_path):
    with pytest.raises(Failure, match="free some space") as told:
        Reserve(tmp_path, 100, measure=Disk(99)).check()
    assert told.value.code == "storage_full"
    assert told.value.details == {"free_bytes": 99 * MIB, "reserve_bytes": 100 * MIB, "retry_after": 10}


def test_the_door_does_not_open_and_shut_with_each_megabyte(tmp_path):
    disk = Disk(99)
    reserve = Reserve(tmp_path, 100, measure=disk)
    lows = []
    for free in (99, 101, 124, 126, 101, 99):
        disk.free = free
        lows.append(reserve.room().low)
    assert lows == [True, True, True, False, False, True]


def test_nothing_is_kept_when_nothing_is_to_be_kept(tmp_path):
    Reserve(tmp_path, 0, measure=Disk(0)).check()


def test_the_disk_is_looked_at_once_a_second_however_many_ask(tmp_path):
    disk = Disk(1_000)
    reserve = Reserve(tmp_path, measure=disk)
    for _ in range(1_000):
        reserve.check()
    assert disk.looks <= 2


@pytest.mark.parametrize("text", ["much", "-1", "nan", "inf"])
def test_a_reserve_that_is_no_size_is_refused_with_what_to_write(tmp_path, text):
    with pytest.raises(Failure, match="VX11_DISK_RESERVE_MB=512"):
        Reserve.of(Settings(tmp_path, {"VX11_DISK_RESERVE_MB": text}))


def test_only_what_is_logged_from_now_on_counts_and_a_new_file_counts_whole(tmp_path):
    file = tmp_path / "nats.log"
    file.write_text(SIGN)
    failed = FailedWrites(file)
    assert not failed.look()
    with file.open("a") as log:
        log.write(BOUND)
    assert not failed.look()
    with file.open("a") as log:
        log.write(SIGN)
    assert failed.look()
    assert not failed.look()
    file.write_text(SIGN)
    assert failed.look()
    file.unlink()
    assert not failed.look()


class House:
    """A mending whose server can be seen to be restarted."""

    def __init__(self, tmp_path, *, reserve: float | None = None) -> None:
        self.log = tmp_path / "nats.log"
        self.log.touch()
        self.disk = Disk(10_000)
        self.restarts = 0
        self.mending = Mending(Reserve(tmp_path, reserve, measure=self.disk), self.log, self._restart)

    def _restart(self) -> None:
        self.restarts += 1

    def fail(self) -> None:
        with self.log.open("a") as log:
            log.write(SIGN)

    def look(self, now: float) -> list[type]:
        return [type(event) for event in self.mending.look(now)]


@pytest.fixture
def house(tmp_path) -> House:
    return House(tmp_path)


def test_while_all_is_well_nothing_is_done(house):
    assert [house.look(now) for now in range(1_000, 1_060)] == [[]] * 60
    assert not house.restarts


def test_a_server_that_failed_to_write_is_started_anew_once_there_is_room_and_not_before(house):
    house.disk.free = 0.01
    house.fail()
    assert house.look(1_000) == [StorageLow]
    house.fail()
    assert house.look(1_001) == []
    assert not house.restarts
    house.disk.free = 300  # too little for the door, enough for VX11 itself
    assert house.look(1_002) == [ServerMended]
    house.disk.free = 10_000
    assert house.look(1_003) == [StorageBack]
    assert [house.look(now) for now in range(1_004, 1_100)] == [[]] * 96
    assert house.restarts == 1


def test_a_disk_that_was_full_while_nobody_could_log_it_is_reason_enough(house):
    house.disk.free = 0.5
    house.look(1_000)
    house.disk.free = 10_000
    assert house.look(1_001) == [StorageBack, ServerMended]


def test_little_room_alone_is_no_reason(house):
    house.disk.free = 100
    assert house.look(1_000) == [StorageLow]
    house.disk.free = 10_000
    assert house.look(1_001) == [StorageBack]
    assert not house.restarts


def test_a_broken_disk_does_not_make_a_loop_of_restarts(house):
    """Writes fail and there is room: each restart comes after twice the time of the one before."""
    moments = []
    for now in range(1_000, 1_200):
        house.fail()
        if ServerMended in house.look(now):
            moments.append(now)
    assert moments == [
        1_000,
        1_000 + PAUSE_FIRST_S,
        1_000 + 3 * PAUSE_FIRST_S,
        1_000 + 7 * PAUSE_FIRST_S,
        1_000 + 15 * PAUSE_FIRST_S,
    ]
    later = moments[-1] + CALM_S + 20 * PAUSE_FIRST_S
    assert house.look(later) == [ServerMended]
    house.fail()
    assert house.look(later + 1) == []
    assert house.look(later + PAUSE_FIRST_S) == [ServerMended]


def test_a_disk_that_stays_broken_is_given_the_longest_pause_for_as_long_as_it_is(house):
    """The pause itself is no calm: nothing works meanwhile."""
    moments = []
    for look in range(6 * int(PAUSE_MOST_S)):
        now = 1_000 + 1.01 * look
        house.fail()
        if ServerMended in house.look(now):
            moments.append(now)
    pauses = [after - before for before, after in itertools.pairwise(moments)]
    assert len(pauses) > 8
    assert min(pauses[-3:]) >= PAUSE_MOST_S


def test_a_server_that_is_not_ours_is_left_alone(tmp_path):
    log = tmp_path / "nats.log"
    mending = Mending(Reserve(tmp_path, measure=Disk(0.1)), log, None)
    log.write_text(SIGN)
    assert [type(event) for event in mending.look(1_000)] == [StorageLow]
    assert mending.reason == ""


def test_a_disk_that_cannot_be_looked_at_ends_nothing(tmp_path):
    def broken(folder):
        raise OSError(5, "input/output error")

    assert Mending(Reserve(tmp_path, measure=broken), tmp_path / "nats.log", None).look() == []


def test_what_cannot_be_started_on_a_full_disk_is_tried_again_and_the_supervisor_lives_on(tmp_path):
    supervisor = Supervisor(Settings(tmp_path))
    tries = []

    def start() -> None:
        tries.append(len(tries))
        if len(tries) == 1:
            raise OSError(errno.ENOSPC, "no space left on device")

    supervisor._keep_up("nats-server", 1, start, 1_000.0)
    assert tries == [0]
    supervisor._keep_up("nats-server", None, start, 1_000.5)
    assert tries == [0], "not in a loop"
    supervisor._keep_up("nats-server", None, start, 1_000.0 + AGAIN_MOST_S)
    assert tries == [0, 1]
    assert (tmp_path / "run.json").exists()


def test_a_server_whose_data_another_one_still_has_is_tried_again_and_the_supervisor_lives_on(tmp_path):
    """It would take all services with it, for one that may be free in a moment."""
    supervisor = Supervisor(Settings(tmp_path))
    tries = []

    def start() -> None:
        tries.append(len(tries))
        if len(tries) == 1:
            raise Failure("conflict", "another server still runs on it")

    supervisor._keep_up("nats-server", 1, start, 1_000.0)
    supervisor._keep_up("nats-server", None, start, 1_000.0 + AGAIN_MOST_S)
    assert tries == [0, 1]


def test_what_is_to_be_told_waits_when_no_process_can_be_made(tmp_path, monkeypatch):
    supervisor = Supervisor(Settings(tmp_path))
    event = StorageBack(free_bytes=1, reserve_bytes=1, at="2026-01-02T03:04:05.678Z")
    supervisor.untold = [event]

    def none() -> int:
        raise OSError(errno.EAGAIN, "no more processes")

    monkeypatch.setattr("os.fork", none)
    supervisor._look_at_room()
    assert supervisor.untold == [event]


def test_a_run_file_that_has_no_room_is_written_later(tmp_path, monkeypatch):
    supervisor = Supervisor(Settings(tmp_path))
    full = True

    def written(path, text) -> None:
        if full:
            raise OSError(errno.ENOSPC, "no space left on device")
        path.write_text(text)

    monkeypatch.setattr("bus.supervisor.write_secret", written)
    supervisor._note_run()
    assert supervisor.unwritten
    full = False
    supervisor._look_at_room()
    assert not supervisor.unwritten
    assert (tmp_path / "run.json").exists()
