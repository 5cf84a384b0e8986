"""What processes share before they are forked."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap

import pytest

UNCOUNTED = sys.version_info >= (3, 12)
"""Whether this Python knows objects whose references are not counted."""
FORK = """
    import gc, os
    from bus.image import immortalise

    shared = [str(n) * 20 for n in range(50_000)]
    gc.collect()
    {first}
    gc.freeze()
    if os.fork():
        os.wait()
    else:
        for one in shared:
            kept = one
        rollup = open("/proc/self/smaps_rollup").read().split()
        print(rollup[rollup.index("Private_Dirty:") + 1], flush=True)
        os._exit(0)
"""


def program(text: str) -> subprocess.CompletedProcess[str]:
    """Run in an interpreter of its own: what is done there is done for ever."""
    return subprocess.run([sys.executable, "-c", textwrap.dedent(text)], capture_output=True, text=True, timeout=60, check=False)


def test_what_is_there_is_not_counted_any_more_and_what_comes_is() -> None:
    ran = program(
        """
        import sys, weakref
        from bus.image import immortalise

        class Thing: pass

        old, text = Thing(), "a string of its own " * 3
        code = compile("x = 'a constant of a code object of its own'", "here", "exec")
        made = immortalise()
        counted = []
        for one in (old, Thing, text, code, code.co_consts[0]):
            before = sys.getrefcount(one)
            kept = [one] * 5
            counted.append(sys.getrefcount(one) != before)
        new = Thing()
        seen = weakref.ref(new)
        del new
        print(made, any(counted), all(counted), seen() is None, immortalise() < made)
        """
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    made, some, every, freed, again = ran.stdout.split()
    assert freed == "True"
    if UNCOUNTED:
        assert int(made) > 10_000
        assert (some, again) == ("False", "True")
    else:
        assert (made, every) == ("0", "True")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells which pages a process has written to")
def test_a_fork_that_uses_it_writes_to_none_of_it() -> None:
    counted = int(program(FORK.format(first="pass")).stdout)
    ran = program(FORK.format(first="immortalise()"))
    assert ran.stderr == ""
    assert (int(ran.stdout) < counted / 4) == UNCOUNTED, f"{ran.stdout} KiB, {counted} KiB when they are counted"


def test_an_actor_has_nothing_of_the_services_in_its_memory() -> None:
    ran = program(
        """
        import sys
        from bus import image
        from bus.settings import Settings

        others = ("gateway", "actors.madre", "actors.keeper", "sqlcipher3")
        image.begin(Settings.read({"VX11_HOME": "/nonexistent"}))
        image.add("bus.host")
        print([name for name in sys.modules if name.startswith(others)])
        image.add("gateway.http.main")
        print("gateway.http.main" in sys.modules)
        """
    )
    assert (ran.stdout, ran.stderr) == ("[]\nTrue\n", "")


def test_a_sigterm_while_it_rehearses_is_not_lost() -> None:
    ran = program(
        """
        import asyncio, os, signal
        from bus import image, warm
        from bus.settings import Settings

        async def played(settings):
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGTERM, print, "heard by what was played")
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(0.05)
            loop.remove_signal_handler(signal.SIGTERM)
            print("played", flush=True)

        warm.rehearse = played
        image._rehearse(Settings.read({}))
        """
    )
    assert (ran.returncode, ran.stdout) == (-signal.SIGTERM, "played\n" * 4)


def test_the_rehearsals_leave_nothing_behind() -> None:
    ran = program(
        """
        import os, signal, sys, threading
        from bus import image
        from bus.settings import Settings

        image._rehearse(Settings.read({"VX11_HOME": "/nonexistent"}))
        fds = "/proc/self/fd" if sys.platform == "linux" else "/dev/fd"
        print(threading.active_count(), len(os.listdir(fds)), signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)
        print(signal.set_wakeup_fd(-1), signal.pthread_sigmask(signal.SIG_BLOCK, []))
        """
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout == "1 4 True\n-1 set()\n"  # of descriptors, one is the listing's own
