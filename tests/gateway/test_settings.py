"""Settings: each limit has its default and its variable, and what must not be started is refused with 78."""

from __future__ import annotations

import pytest

from bus.settings import Settings
from gateway.http.settings import HttpSettings, Misconfigured, address, redacted


def read(tmp_path, **variables) -> HttpSettings:
    return HttpSettings.read(Settings(tmp_path, variables))


def test_the_defaults_are_those_of_the_contract(tmp_path):
    made = read(tmp_path)
    assert (made.bind, made.control_bind, made.auth_mode) == ("127.0.0.1:8000", "127.0.0.1:8001", "token")
    assert (made.header_s, made.body_bytes) == (5, 1024 * 1024)
    assert (made.connections, made.address_connections) == (256, 32)
    assert (made.rate, made.burst, made.in_flight) == (200, 400, 1_024)
    assert {line.source for line in made.effective()} == {"default"}


def test_the_environment_is_heard_and_named_as_the_source(tmp_path):
    made = read(tmp_path, VX11_HTTP_RATE="7.5", VX11_HTTP_BIND="[::1]:9000", VX11_TOKEN="mine", VX11_OTHER="x")
    told = {line.name: (line.value, line.source) for line in made.effective()}
    assert made.rate == 7.5
    assert made.public == ("::1", 9000)
    assert told["VX11_HTTP_RATE"] == ("7.5", "environment")
    assert told["VX11_HTTP_BIND"] == ("[::1]:9000", "environment")
    assert told["VX11_OTHER"] == ("x", "environment")
    assert told["VX11_TOKEN"] == ("***", "environment")
    assert told["VX11_HTTP_BURST"] == ("400", "default")


@pytest.mark.parametrize(
    ("variables", "why"),
    [
        ({"VX11_AUTH_MODE": "off", "VX11_HTTP_BIND": "0.0.0.0:8000"}, "loopback only"),
        ({"VX11_AUTH_MODE": "off", "VX11_HTTP_BIND": "[::]:8000"}, "loopback only"),
        ({"VX11_AUTH_MODE": "off", "VX11_HTTP_BIND": "192.0.2.1:8000"}, "loopback only"),
        ({"VX11_AUTH_MODE": "maybe"}, "token or off"),
        ({"VX11_HTTP_BIND": "0.0.0.0:8000", "VX11_TOKEN": "short"}, "32 characters"),
        ({"VX11_CONTROL_BIND": "0.0.0.0:8001"}, "must be loopback"),
        ({"VX11_HTTP_BIND": "8000"}, "no address"),
        ({"VX11_HTTP_BIND": "127.0.0.1:http"}, "no address"),
        ({"VX11_HTTP_BIND": "no.such.name.invalid:80"}, "can be found"),
        ({"VX11_HTTP_RATE": "many"}, "no number"),
        ({"VX11_HTTP_BODY_BYTES": "-1"}, "VX11_HTTP_BODY_BYTES must be more than 0"),
    ],
)
def test_what_must_not_be_started_is_refused_and_says_why(tmp_path, variables, why):
    with pytest.raises(Misconfigured, match=why) as refused:
        read(tmp_path, **variables)
    assert refused.value.exit_code == 78


def test_off_is_fine_on_loopback_by_any_of_its_names(tmp_path):
    for bind in ("127.0.0.1:8000", "[::1]:8000", "localhost:8000", "127.9.9.9:1"):
        assert read(tmp_path, VX11_AUTH_MODE="off", VX11_HTTP_BIND=bind).auth_mode == "off"


def test_the_alias_can_be_left_out(tmp_path):
    assert read(tmp_path, VX11_CONTROL_BIND="off").control is None


def test_an_address_is_written_as_it_is_read():
    for text in ("127.0.0.1:8000", "[::1]:80", "localhost:0"):
        assert str(address(text)) == text


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("VX11_TOKEN", "x", "***"),
        ("OPENAI_API_KEY", "sk-x", "***"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=x", "***"),
        ("VX11_TOKEN", "", ""),
        ("VX11_REDIS_URL", "redis://:secret@127.0.0.1:6379/0", "redis://***@127.0.0.1:6379/0"),
        ("VX11_NATS_URL", "nats://127.0.0.1:4222", "nats://127.0.0.1:4222"),
    ],
)
def test_secrets_are_not_shown(name, value, shown):
    assert redacted(name, value) == shown
