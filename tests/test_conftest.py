"""The guards of this test suite can fail: a guard that cannot is no guard."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests import again
from tests.conftest import RULE_BROKEN, skip_faults

ROOT = Path(__file__).parent.parent


@pytest.fixture
def run(tmp_path: Path):
    """Run one test module with this suite's conftest; its exit code and output."""

    def run(source: str, *options: str) -> tuple[int, str]:
        (tmp_path / "conftest.py").write_text("from tests.conftest import *  # noqa\n")
        (tmp_path / "test_one.py").write_text(textwrap.dedent(source))
        argv = [sys.executable, "-m", "pytest", "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(tmp_path)]
        done = subprocess.run(
            [*argv, "-p", "no:cacheprovider", str(tmp_path), *options],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    return run


def test_a_clean_run_passes(run):
    code, output = run("async def test_it(): pass")
    assert code == 0, output


def test_a_task_left_behind_fails_the_test(run):
    code, output = run("""
        import asyncio
        kept = []
        async def test_it(): kept.append(asyncio.create_task(asyncio.sleep(60)))
    """)
    assert code == 1
    assert "tasks left behind" in output


def test_a_process_left_behind_fails_the_run_and_is_ended(run):
    """Also one that has left our process tree."""
    code, output = run("""
        import subprocess
        def test_it(): subprocess.run("sleep 61 & echo", shell=True, start_new_session=True, check=True)
    """)
    assert code == RULE_BROKEN
    assert "left running" in output


def test_a_skip_that_is_not_named_fails_the_run(run, tmp_path):
    skips = tmp_path / "skips.txt"
    skips.write_text("")
    code, output = run("import pytest\ndef test_it(): pytest.skip('why')", "--skips", str(skips))
    assert code == RULE_BROKEN
    assert "skipped, but not named: test_one.py::test_it" in output


def test_a_run_over_its_budget_fails(run):
    code, output = run("def test_it(): pass", "--budget", "0.000001")
    assert code == RULE_BROKEN
    assert "the budget is" in output


@pytest.mark.parametrize(
    ("skipped", "lines", "variables", "faults"),
    [
        (set(), "# nothing\n", set(), 0),
        ({"a"}, "a\n", set(), 0),
        (set(), "a\n", set(), 1),
        ({"a"}, "a unless CLI # needs a program\n", set(), 0),
        (set(), "a unless CLI\n", {"CLI"}, 0),
        ({"a"}, "a unless CLI\n", {"CLI"}, 1),
    ],
)
def test_the_list_of_skips_is_exact(skipped, lines, variables, faults):
    assert len(skip_faults(skipped, lines, variables)) == faults


@pytest.mark.parametrize(
    ("failed", "code", "told"),
    [
        (["test_one.py::test_good"], 0, "UNSTEADY, failed once and passed alone: test_one.py::test_good"),
        (
            [f"test_one.py::test_each[{n}]" for n in range(5)],
            0,
            "UNSTEADY, failed once and passed alone: test_one.py::test_each[0]",
        ),
        (["test_one.py::test_good", "test_one.py::test_bad"], 1, "once more, alone"),
        (["a.py::test", "b.py::test", "c.py::test", "d.py::test"], 1, ""),
        ([], 1, ""),
    ],
)
def test_a_few_that_failed_have_a_second_look(tmp_path, failed, code, told):
    """What fails twice fails; what does not is named."""
    tests = "import pytest\ndef test_good(): pass\ndef test_bad(): assert False\n"
    tests += "@pytest.mark.parametrize('n', range(5))\ndef test_each(n): pass\n"
    (tmp_path / "test_one.py").write_text(tests)
    kept = tmp_path / again.FAILED
    kept.parent.mkdir(parents=True)
    kept.write_text(json.dumps(dict.fromkeys(failed, True)))
    done = subprocess.run([sys.executable, again.__file__], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, told in done.stdout) == (code, True)
