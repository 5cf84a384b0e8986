"""Small truths about processes: dying with the parent, names of start times, redirected output."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from functools import lru_cache
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_MADV_DONTNEED = 4
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def die_with_parent(parent: int) -> None:
    """Linux: SIGKILL this process when `parent`, which forked it, ends. Elsewhere the caller watches a pipe."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent:
        os._exit(1)


@lru_cache(maxsize=1)
def born(pid: int) -> float:
    """`started_at` of a process that is there for as long as this one: of itself."""
    return started_at(pid)


def started_at(pid: int) -> float:
    """When the process `pid` began, in seconds on a clock that nobody sets; 0.0 when there is none (or only its remains).

    On Linux since the machine started; elsewhere since the epoch, which is all that can be had.
    """
    if sys.platform != "linux":
        return _created(pid)
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return 0.0 if fields[0] in ("Z", "X") else int(fields[19]) / os.sysconf("SC_CLK_TCK")


def _created(pid: int) -> float:
    import psutil  # 1 MB that nobody needs on Linux

    try:
        process = psutil.Process(pid)
        return 0.0 if process.status() == psutil.STATUS_ZOMBIE else float(process.create_time())
    except psutil.Error:
        return 0.0


def resident() -> int:
    """Bytes of memory that this process has now."""
    if sys.platform != "linux":
        import psutil

        return int(psutil.Process().memory_info().rss)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def forget_files() -> None:
    """Linux: give back the pages of programs and libraries; what is used again comes from the machine's cache of files.

    Most of them were needed for the start only. Nothing is forgotten that was ever written to.
    """
    if _LIBC is None:
        return
    span, written = (0, 0), 0
    with open("/proc/self/smaps", "rb") as mappings:  # noqa: PTH123 - as in `close_others`; line by line, so that it takes no room
        for line in mappings:
            if line.startswith((b"Anonymous:", b"Swap:")):
                written += int(line.split()[1])
            elif line.startswith(b"VmFlags:") and span[1] and not written:
                _LIBC.madvise(ctypes.c_void_p(span[0]), ctypes.c_size_t(span[1] - span[0]), _MADV_DONTNEED)
            elif b"-" in line[:17]:  # the head of a mapping: its addresses, what may be done there, ..., its file
                start, _, end = line.split(b" ", 1)[0].partition(b"-")
                is_file = (b" r--p " in line or b" r-xp " in line) and b"/" in line
                span, written = (int(start, 16), int(end, 16)) if is_file else (0, 0), 0


def is_same(pid: int, born: float) -> bool:
    """Whether `pid` is still the process that began at `born`, as `started_at` told it (in steps of 10 ms)."""
    return bool(pid) and born > 0 and abs(started_at(pid) - born) < 0.1


def write_output_to(log: Path) -> None:
    """Append stdout and stderr of this process to `log`."""
    if not os.path.isdir(log.parent):  # noqa: PTH112 - as in `close_others`
        log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    os.close(fd)


def close_others(keep: set[int]) -> None:
    """Close every descriptor above stderr but those in `keep`: what a fork took along."""
    folder = "/proc/self/fd" if sys.platform == "linux" else "/dev/fd"
    for fd in map(int, os.listdir(folder)):  # noqa: PTH208 - before it pathlib would be touched, in every process
        if fd > 2 and fd not in keep:
            try:
                os.close(fd)
            except OSError:
                continue  # the listing's own descriptor


def kill(pid: int) -> None:
    """One that has just ended by itself is no error."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def empty(fd: int) -> None:
    try:
        while os.read(fd, 4096):
            continue
    except BlockingIOError:
        return
