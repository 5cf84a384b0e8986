"""`nats-context`: the file that the stock command line reads, and what to type then."""

from __future__ import annotations

import json
import os

from bus.process import started_at
from gateway.cli.desk import make_desk
from gateway.cli.nats_context import write


def run_here(home, url: str) -> None:
    me = {"pid": os.getpid(), "born": started_at(os.getpid())}
    (home / "run.json").write_text(json.dumps({"nats_url": url, "supervisor": me}))


def test_the_file_names_the_server_and_the_seed_of_the_client(terminal, home) -> None:
    run_here(home, "nats://127.0.0.1:4999")
    ran = terminal("nats-context")
    path = terminal.config / "nats" / "context" / "vx11.json"
    document = json.loads(path.read_text())
    assert document["url"] == "nats://127.0.0.1:4999"
    assert document["nkey"] == str(home / "nats" / "client.nk")
    assert path.stat().st_mode & 0o777 == 0o600
    assert str(path) in ran.out
    assert "nats --context vx11 micro ls" in ran.err


def test_the_seed_itself_is_in_neither_file_nor_output(terminal, home) -> None:
    (home / "nats").mkdir()
    (home / "nats" / "client.nk").write_text("SUAB")
    run_here(home, "nats://127.0.0.1:4999")
    ran = terminal("nats-context")
    path = terminal.config / "nats" / "context" / "vx11.json"
    assert "SUAB" not in path.read_text() + ran.out + ran.err


def test_a_second_time_replaces_it(tmp_path) -> None:
    """Ports change between two starts."""
    write(tmp_path, "nats://127.0.0.1:1", tmp_path / "a.nk")
    path = write(tmp_path, "nats://127.0.0.1:2", tmp_path / "a.nk")
    assert json.loads(path.read_text())["url"] == "nats://127.0.0.1:2"
    assert [one.name for one in path.parent.iterdir()] == ["vx11.json"]


def test_xdg_config_home_is_honoured(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "elsewhere"))
    assert make_desk(None).config == tmp_path / "elsewhere"
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert make_desk(None).config == tmp_path / ".config"


def test_where_nats_would_look_elsewhere_it_says_so(monkeypatch, terminal, home) -> None:
    """It goes by the user's account, not by HOME; without a word it would find no context."""
    run_here(home, "nats://127.0.0.1:4999")
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    assert f"export XDG_CONFIG_HOME={terminal.config}" in terminal("nats-context").err
    monkeypatch.setenv("XDG_CONFIG_HOME", str(terminal.config))
    assert "XDG_CONFIG_HOME" not in terminal("nats-context").err


def test_it_needs_a_running_vx11(terminal) -> None:
    assert terminal("nats-context").code == 69
