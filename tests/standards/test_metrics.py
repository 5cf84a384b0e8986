"""/metrics by the rules of the text format and of Prometheus' own linter, whatever names and reasons are in it."""

from __future__ import annotations

import asyncio
import math
import os
import re
import subprocess
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from gateway.http.metrics import Family, Meter, Sample, text
from gateway.usage import Costs
from tests.gateway.scripted import LIST, actor, listed
from tests.gateway.test_costs import Kept

NAME = re.compile(r"[a-z][a-z0-9_]*")
LINE = re.compile(r'([a-z][a-z0-9_]*)(?:\{((?:[a-z_]+="(?:[^"\\\n]|\\[\\"n])*",?)*)\})? (NaN|[+-]Inf|-?[0-9.e+-]+)')
LABEL = re.compile(r'([a-z_]+)="((?:[^"\\\n]|\\[\\"n])*)"')
NO_BASE_UNIT = re.compile(
    r"_(ms|us|millis|milliseconds|microseconds|minutes|hours|days|kb|mb|kilobytes|megabytes|percent|sec|secs)(_|$)"
)
"""What promtool calls an abbreviated or a non-base unit."""
SUFFIXES = ("_bucket", "_sum", "_count")


class Page:
    """A page of metrics, read by the grammar of the text format 0.0.4 and nothing more lenient."""

    def __init__(self, page: str) -> None:
        assert page.endswith("\n")
        self.kinds: dict[str, str] = {}
        self.helps: dict[str, str] = {}
        self.samples: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
        self.order: list[str] = []
        for line in page[:-1].split("\n"):
            self._line(line)

    def _line(self, line: str) -> None:
        if line.startswith("# HELP "):
            _, _, name, told = line.split(" ", 3)
            assert name not in self.helps, line
            self.helps[name] = told
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name in self.helps, "HELP comes first"
            assert name not in self.kinds, line
            self.kinds[name] = kind
        else:
            self._sample(line)

    def _sample(self, line: str) -> None:
        found = LINE.fullmatch(line)
        assert found, line
        family = found[1] if found[1] in self.kinds else re.sub("_(bucket|sum|count)$", "", found[1])
        assert family in self.kinds, line
        if not self.order or self.order[-1] != family:
            assert family not in self.order, f"{family} is in two places"
            self.order.append(family)
        labels = LABEL.findall(found[2] or "")
        assert len({name for name, _ in labels}) == len(labels), line
        key = found[1], tuple(sorted(labels))
        assert key not in self.samples, line
        self.samples[key] = float(found[3])

    def lint(self) -> list[str]:
        """What `promtool check metrics` would find."""
        found = []
        for name, kind in self.kinds.items():
            found += [f"{name}: no help"] * (not self.helps[name].strip())
            found += [f"{name}: {kind}"] * (kind not in ("counter", "gauge", "histogram"))
            found += [f"{name}: a counter ends in _total"] * (kind == "counter" and not name.endswith("_total"))
            found += [f"{name}: no counter ends in _total"] * (kind != "counter" and name.endswith("_total"))
            found += [f"{name}: ends like a histogram's part"] * (kind != "histogram" and name.endswith(SUFFIXES))
            found += [f"{name}: its unit"] * bool(NO_BASE_UNIT.search(name))
            found += [f"{name}: its kind is in its name"] * any(word in name for word in ("gauge", "counter_", "histogram"))
            found += [f"{name}: its form"] * (not NAME.fullmatch(name))
        labels = {label for _, pairs in self.samples for label, _ in pairs}
        return found + [f"label {label}" for label in labels if not NAME.fullmatch(label) or label == "quantile"]

    def histograms(self) -> None:
        """Each series goes up to +Inf, which is its count."""
        for name in (name for name, kind in self.kinds.items() if kind == "histogram"):
            series: dict[tuple[tuple[str, str], ...], list[tuple[float, float]]] = {}
            for (sample, labels), value in self.samples.items():
                if sample == f"{name}_bucket":
                    rest = tuple(pair for pair in labels if pair[0] != "le")
                    series.setdefault(rest, []).append((float(dict(labels)["le"]), value))
            assert series
            for rest, buckets in series.items():
                assert buckets == sorted(buckets)
                assert [value for _, value in buckets] == sorted(value for _, value in buckets)
                assert buckets[-1] == (math.inf, self.samples[f"{name}_count", rest])
                assert (f"{name}_sum", rest) in self.samples


@pytest.fixture
async def metrics(link) -> str:
    """After requests of all sorts, with actors in every state."""
    states = ("dormant", "waking", "active", "draining", "failed", "adopting")
    actors = [actor(f"a{number}", state, wakes=number, last_wake_ms=12.5) for number, state in enumerate(states)]
    link.bus.answers[LIST] = listed(*actors)
    for path, more in (("/health", {}), ("/nope", {}), ("/api/map", {"token": "wrong"}), ("/operator/api/events", {})):
        await link.get(path, **more)
    await link.ask("SURPRISE", "/health")
    await link.post("/operator/api/chat", {"message": "hi"})
    link.parts.observed.stale()
    link.parts.costs = Costs(Kept("2026-11-23"))
    return (await link.get("/metrics")).text


async def test_the_page_is_strict_text_format(metrics):
    page = Page(metrics)
    assert len(page.samples) > 60
    page.histograms()


async def test_the_linter_has_nothing_to_say(metrics):
    assert Page(metrics).lint() == []


async def test_the_parser_of_prometheus_reads_the_same(metrics):
    """Prometheus' own Python client: an independent reading."""
    theirs = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(metrics)
        for sample in family.samples
    }
    ours = Page(metrics).samples
    assert theirs.keys() == ours.keys()
    assert all(theirs[key] == value or (math.isnan(value) and math.isnan(theirs[key])) for key, value in ours.items())


async def test_promtool_has_nothing_to_say(metrics):
    """`VX11_PROMTOOL` names the program; Debian has it in the package prometheus."""
    if not (promtool := os.environ.get("VX11_PROMTOOL")):
        pytest.skip("VX11_PROMTOOL names no promtool")
    words = [promtool, "check", "metrics"]
    done = await asyncio.to_thread(subprocess.run, words, input=metrics, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


WRONG = {
    "vx11_wake_ms": "gauge",
    "vx11_wakes": "counter",
    "vx11_held_total": "gauge",
    "vx11_wake_count": "gauge",
    "vx11_Wake": "gauge",
}


@pytest.mark.parametrize(("name", "kind"), WRONG.items())
def test_the_linter_of_this_test_finds_what_is_wrong(name, kind):
    page = Page.__new__(Page)
    page.kinds, page.helps, page.samples = {name: kind}, {name: "Something."}, {}
    assert page.lint()


@given(st.lists(st.tuples(st.text(max_size=20), st.floats()), min_size=1, max_size=5, unique_by=lambda pair: pair[0]))
def test_whatever_a_label_says_the_page_stays_whole(pairs):
    """Reasons and names come from other people; a line break in one must not become a sample."""
    pairs = [(label.encode(errors="replace").decode(), value) for label, value in pairs]
    if any(n > 1 for n in Counter(label for label, _ in pairs).values()):
        return
    family = Family("vx11_test", "gauge", "Any \\ help\nin two lines.", [Sample("vx11_test", v, {"reason": k}) for k, v in pairs])
    written = text([family])
    assert len(Page(written).samples) == len(pairs)
    (read,) = text_string_to_metric_families(written)
    assert read.documentation == family.help
    for sample, (label, value) in zip(read.samples, pairs, strict=True):
        assert sample.labels["reason"] == label
        assert sample.value == value or (math.isnan(sample.value) and math.isnan(value))


def test_a_gateway_that_has_done_nothing_has_a_page():
    page = Page(text(Meter().families()))
    assert page.lint() == []
