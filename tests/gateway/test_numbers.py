"""The numbers: Prometheus text that parses, and the operator's list of the same samples."""

from __future__ import annotations

import math
import re

from gateway.http.metrics import NEWEST, Meter, gauge, quantile, text
from schemas.errors import Failure
from tests.gateway.scripted import LIST, actor, listed
from tests.gateway.test_doors import is_error

LINE = re.compile(r'(vx11_[a-z0-9_]+)(\{[a-z_]+="(?:[^"\\]|\\.)*"(?:,[a-z_]+="(?:[^"\\]|\\.)*")*\})? (\S+)')


def read(page: str) -> dict[str, float]:
    """Every sample by its name and labels; fails on a line that is no Prometheus text."""
    samples, declared = {}, set()
    for line in page.splitlines():
        if line.startswith("# TYPE "):
            declared.add(line.split()[2])
        if line.startswith("#"):
            continue
        found = LINE.fullmatch(line)
        assert found, line
        assert re.sub(r"_(bucket|sum|count)$", "", found[1]) in declared or found[1] in declared, line
        samples[found[1] + (found[2] or "")] = float(found[3])
    return samples


async def test_the_page_counts_what_has_been_answered(link):
    for _ in range(3):
        await link.get("/health")
    await link.get("/nope/1")
    await link.get("/nope/2")
    await link.get("/api/map", token="wrong")
    reply = await link.get("/metrics")
    assert reply.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    samples = read(reply.text)
    assert samples['vx11_http_requests_total{route="health",method="GET",status="200"}'] == 3
    assert samples['vx11_http_requests_total{route="nowhere",method="GET",status="404"}'] == 2
    assert samples['vx11_http_refused_total{reason="forbidden"}'] == 1
    assert samples['vx11_http_request_duration_seconds_count{route="health"}'] == 3
    assert samples['vx11_http_request_duration_seconds_bucket{route="health",le="+Inf"}'] == 3
    assert samples["vx11_bus_connected"] == 1
    assert samples["vx11_http_in_flight"] == 1


async def test_a_method_of_the_clients_own_invention_makes_no_new_series(link):
    """The parser takes the registered ones only, so nobody can fill the page."""
    for method in ("BREW", "FROB", "X" * 20):
        assert (await link.ask(method, "/health")).status == 400
    samples = read((await link.get("/metrics")).text)
    assert samples['vx11_http_refused_total{reason="not_http"}'] == 3
    assert not [name for name in samples if "FROB" in name]


async def test_actors_are_counted_as_last_observed(link):
    link.bus.answers[LIST] = listed(actor("switch", "active", wakes=4, last_wake_ms=12.0, in_flight=2), actor("greeter"))
    samples = read((await link.get("/metrics")).text)
    assert samples['vx11_actor_up{actor="switch"}'] == 1
    assert samples['vx11_actor_up{actor="greeter"}'] == 0
    assert samples['vx11_actor_state{actor="switch",state="active"}'] == 1
    assert samples['vx11_actor_wakes_total{actor="switch"}'] == 4
    assert samples['vx11_actor_last_wake_seconds{actor="switch"}'] == 0.012
    assert samples['vx11_actor_in_flight{actor="switch"}'] == 2
    assert 'vx11_actor_last_wake_seconds{actor="greeter"}' not in samples
    assert samples["vx11_policy_solo_madre"] == 1


async def test_what_was_not_observed_is_no_number(link):
    await link.get("/api/map")
    link.parts.observed._until = 0.0
    link.bus.answers[LIST] = Failure("unavailable", "nobody")
    samples = read((await link.get("/metrics")).text)
    assert samples['vx11_actor_up{actor="madre"}'] == 0
    assert math.isnan(samples['vx11_actor_up{actor="switch"}'])
    assert not [name for name in samples if name.startswith(("vx11_actor_state", "vx11_policy", "vx11_windows"))]


async def test_the_operators_list_has_every_field(link):
    await link.get("/health")
    said = (await link.get("/operator/api/metrics")).json
    assert set(said) >= {"ok", "metrics", "count", "data"}
    assert said["count"] == len(said["metrics"]) > 0
    metric = said["metrics"][0]
    assert set(metric) == {"metric_id", "ts", "metric_name", "value", "module", "dimensions"}
    data = said["data"]
    assert set(data) >= {
        "uptime_seconds",
        "requests_total",
        "requests_per_second",
        "error_rate",
        "p50_latency_ms",
        "p99_latency_ms",
        "timestamp",
    }
    assert data["requests_total"] == 1
    assert data["p99_latency_ms"] >= data["p50_latency_ms"] > 0


async def test_the_list_can_be_narrowed(link):
    said = (await link.get("/operator/api/metrics?name=vx11_actor_up&module=switch")).json
    assert [(m["metric_name"], m["module"], m["value"]) for m in said["metrics"]] == [("vx11_actor_up", "switch", 0.0)]
    assert (await link.get("/operator/api/metrics?limit=2")).json["count"] == 2
    assert is_error(await link.get("/operator/api/metrics?window_seconds=-1"), "invalid")


def test_a_window_counts_what_is_inside_it():
    meter, now = Meter(), 0.0
    meter.clock = lambda: now
    meter.began = 0.0
    for second in range(10):
        now = float(second)
        meter.done("call", "POST", 500 if second == 9 else 200, now - 0.1 * (second + 1))
    now = 10.0
    last = meter.window(4.5)
    assert (last.requests, last.errors, last.seconds) == (4, 1, 4.5)
    assert (round(last.p50_ms), round(last.p99_ms)) == (800, 1_000)
    assert meter.window(1_000).seconds == 10.0


def test_a_window_that_was_too_busy_reaches_back_less_far():
    """Else the rate would be that of the requests that are still remembered over a longer time."""
    meter, now = Meter(), 0.0
    meter.clock = lambda: now
    meter.began = 0.0
    for number in range(NEWEST * 2):
        now = number / 100
        meter.done("call", "POST", 200, now)
    assert round(meter.window(10_000).per_second) == 100


def test_without_requests_there_are_no_percentiles():
    assert Meter().window(60).p50_ms is None
    assert quantile([1.0, 2.0, 3.0, 4.0], 0.5) == 2.0
    assert quantile([1.0], 0.99) == 1.0


def test_labels_cannot_break_the_text():
    page = text([gauge("vx11_x", "Help.", 1.5, reason='a "quoted"\nline \\ end')])
    assert read(page) == {'vx11_x{reason="a \\"quoted\\"\\nline \\\\ end"}': 1.5}
