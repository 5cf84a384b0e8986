"""Small truths about processes."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="on Linux only")


def program(text: str) -> str:
    ran = subprocess.run([sys.executable, "-c", textwrap.dedent(text)], capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    return ran.stdout


def test_pages_of_files_are_given_back_and_come_again() -> None:
    told = program(
        """
        import json, re, sqlite3, ssl
        from bus.process import forget_files

        def files():
            rollup = open("/proc/self/smaps_rollup").read()
            rss, anonymous = (int(re.search(rf"^{word}: +([0-9]+)", rollup, re.M)[1]) for word in ("Rss", "Anonymous"))
            return rss - anonymous

        ssl.create_default_context()
        before = files()
        forget_files()
        after = files()
        sqlite3.connect(":memory:").execute("SELECT 1")
        ssl.create_default_context()
        print(json.dumps([before, after]))
        """
    )
    before, after = json.loads(told)
    assert after < before / 2


def test_what_was_written_to_stays(tmp_path: Path) -> None:
    told = program(
        f"""
        import ctypes, mmap
        from pathlib import Path
        from bus.process import forget_files

        file = Path({str(tmp_path)!r}) / "file"
        file.write_bytes(b"file" * 4096)
        with file.open("rb") as opened:
            mapped = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY)
        mapped[:4] = b"mine"
        at = ctypes.addressof(ctypes.c_char.from_buffer(mapped))
        assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(at), ctypes.c_size_t(len(mapped)), 1) == 0
        forget_files()
        print(mapped[:8])
        """
    )
    assert told == "b'minefile'\n"
