"""Which URLs and addresses may be asked at all."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from actors.switch.asking.address import address_refusal, checked_url, host_refusal, is_loopback, same_place


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:11434/v1",
        "http://localhost:8080/v1",
        "http://[::1]:11434/v1",
        "https://api.openai.com/v1",
        "http://192.168.1.20:8000/v1",
        "http://nas_1.local:1234/v1",
        "https://llm.example.org.:8443",
    ],
)
def test_a_plain_endpoint_is_allowed(url: str) -> None:
    assert checked_url(url) == url


def test_the_last_slash_is_dropped() -> None:
    assert checked_url("http://127.0.0.1:11434/v1/") == "http://127.0.0.1:11434/v1"


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("ftp://example.org/v1", "must begin with http"),
        ("file:///etc/passwd", "must begin with http"),
        ("example.org/v1", "must begin with http"),
        ("http://", "names no host"),
        ("http:///v1", "names no host"),
        ("http://user:pass@example.org/v1", "user or a password"),
        ("http://sk-key@example.org/v1", "user or a password"),
        ("http://@example.org/v1", "user or a password"),
        ("https://example.org/v1?api_key=x", "has a \\? or a #"),
        ("https://example.org/v1#x", "has a \\? or a #"),
        ("https://example.org:0/v1", "port 0"),
        ("https://example.org:99999/v1", "cannot be read"),
        ("http://[::1/v1", "cannot be read"),
        ("https://example.org /v1", "blank"),
        ("https://example.org\\@evil.example/v1", "backslash"),
        ("https://exam\tple.org/v1", "blank"),
        ("https://①⑥⑨.254.169.254/v1", "outside ASCII"),
        ("https://example.org/" + "v" * 500, "more than 500"),
        ("http://169.254.169.254/latest", "metadata address"),
        ("http://169.254.169.254./latest", "metadata address"),
        ("http://[fe80::1]/v1", "link-local"),
        ("http://100.100.100.200/v1", "metadata address"),
        ("http://[fd00:ec2::254]/v1", "metadata address"),
        ("http://[::ffff:169.254.169.254]/v1", "in disguise"),
        ("http://[::ffff:127.0.0.1]/v1", "in disguise"),
        ("http://[2002:a9fe:a9fe::1]/v1", "metadata address"),
        ("http://[64:ff9b::a9fe:a9fe]/v1", "metadata address"),
        ("http://metadata.google.internal/v1", "metadata service"),
        ("http://metadata/v1", "metadata service"),
        ("http://METADATA.google.internal./v1", "metadata service"),
        ("http://0.0.0.0:11434/v1", "no address of one machine"),
        ("http://255.255.255.255/v1", "no address of one machine"),
        ("http://224.0.0.1/v1", "no address of one machine"),
        ("http://2852039166/v1", "a number as its host"),
        ("http://0xa9fea9fe/v1", "a number as its host"),
        ("http://169.254.43518/v1", "a number as its host"),
        ("http://0251.0376.0251.0376/v1", "a number as its host"),
        ("http://127.1/v1", "a number as its host"),
        ("http://169%2e254.169.254/v1", "other than letters"),
    ],
)
def test_a_url_that_could_lead_elsewhere_is_refused(url: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        checked_url(url)


def test_a_refusal_does_not_repeat_the_password() -> None:
    with pytest.raises(ValueError, match="user") as refused:
        checked_url("http://user:hunter2@example.org/v1")
    assert "hunter2" not in str(refused.value)


def test_an_address_behind_nat64_is_judged_by_where_it_leads() -> None:
    """IPv6-only networks reach the whole of IPv4 through this prefix."""
    assert not address_refusal(ip_address("64:ff9b::808:808"))
    assert address_refusal(ip_address("64:ff9b::a9fe:a9fe"))


def test_a_host_that_is_allowed_has_no_refusal() -> None:
    assert not host_refusal("api.openai.com")


def test_all_names_of_this_machine_are_one_place() -> None:
    assert same_place("http://localhost:11434/v1", "http://127.0.0.1:11434")
    assert same_place("http://[::1]:11434/v1", "http://127.0.0.1:11434/v1")
    assert not same_place("http://127.0.0.1:11434/v1", "http://127.0.0.1:8080/v1")


def test_the_usual_port_need_not_be_written() -> None:
    assert same_place("https://api.openai.com/v1", "https://api.openai.com:443/v1")
    assert not same_place("https://api.openai.com/v1", "http://api.openai.com/v1")


def test_loopback_is_known_by_name_and_by_address() -> None:
    assert [is_loopback(host) for host in ("localhost", "127.9.9.9", "::1", "example.org", "10.0.0.1")] == [
        True,
        True,
        True,
        False,
        False,
    ]
