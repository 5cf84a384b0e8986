"""Where a language model may be asked: rules for configured URLs, and for the addresses that their names resolve to."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from urllib.parse import urlsplit

URL_MAX_CHARS = 500
HOST_FORM = re.compile(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?\.?")
"""ASCII only: another alphabet is folded by the HTTP client, so what is checked would not be what is asked."""
NUMBER_FORM = re.compile(r"(0x[0-9a-f]*|[0-9]+)")
METADATA_HOSTS = ("metadata", "instance-data")
METADATA_ADDRESSES = frozenset(
    map(ip_address, ("100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254"))
)
"""Where clouds serve the credentials of the machine, besides 169.254.0.0/16."""
NAT64 = IPv6Network("64:ff9b::/96")

Address = IPv4Address | IPv6Address


def checked_url(text: str) -> str:
    """The base URL without its last slash. Raises ValueError that says what is wrong.

    The message never repeats the URL, in which a password may stand.
    """
    if len(text) > URL_MAX_CHARS or any(c <= " " or c == "\\" or c > "~" for c in text):
        raise ValueError(f"has a blank, a backslash, a letter outside ASCII, or more than {URL_MAX_CHARS} characters")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError as wrong:
        raise ValueError("has a host or a port that cannot be read") from wrong
    if parts.scheme not in ("http", "https"):
        raise ValueError("must begin with http:// or https://")
    if "@" in parts.netloc:
        raise ValueError("has a user or a password in it; a key belongs into key_env or key_file")
    if parts.query or parts.fragment or "?" in text or "#" in text:
        raise ValueError("has a ? or a # in it; a key belongs into key_env or key_file")
    if port == 0:
        raise ValueError("names port 0")
    refused = host_refusal(host)
    if refused:
        raise ValueError(refused)
    return text.rstrip("/")


def host_refusal(host: str) -> str:
    """Why this host of a URL may not be asked; empty when it may."""
    literal = _literal(host)
    if literal is not None:
        return address_refusal(literal)
    name = host.rstrip(".")
    if not HOST_FORM.fullmatch(host):
        return "names no host" if not host else "has a host with other than letters, digits, dots and hyphens"
    if NUMBER_FORM.fullmatch(name.rpartition(".")[2]):
        return "has a number as its host; write the address as four decimal numbers"
    if name.split(".")[0] in METADATA_HOSTS:
        return "names a metadata service, which hands out credentials"
    return ""


def address_refusal(address: Address) -> str:
    """Why nothing may be asked at this address; empty when it may."""
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return f"{address} is an IPv4 address in disguise; write it plainly"
    for one in (address, *_inside(address)):
        if one.is_link_local or one in METADATA_ADDRESSES:
            return f"{address} is a link-local or metadata address, where clouds hand out credentials"
        if one.is_unspecified or one.is_multicast or (isinstance(one, IPv4Address) and one.is_reserved):
            return f"{address} is no address of one machine"
    return ""


def is_loopback(host: str) -> bool:
    """Whether the host is this machine by its name or its address."""
    literal = _literal(host)
    return host == "localhost" or (literal is not None and literal.is_loopback)


def same_place(one: str, other: str) -> bool:
    """Whether two base URLs lead to the same host and port; all loopback names count as one host."""
    return _place(one) == _place(other)


def _place(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    host = parts.hostname or ""
    return ("localhost" if is_loopback(host) else host), parts.port or (443 if parts.scheme == "https" else 80)


def _literal(host: str) -> Address | None:
    try:
        return ip_address(host.rstrip("."))
    except ValueError:
        return None


def _inside(address: Address) -> list[IPv4Address]:
    """The IPv4 addresses that a tunnelled IPv6 address leads to."""
    if isinstance(address, IPv4Address):
        return []
    teredo = address.teredo or ()
    nat64 = IPv4Address(int(address) & 0xFFFFFFFF) if address in NAT64 else None
    return [inner for inner in (address.sixtofour, nat64, *teredo) if inner is not None]
