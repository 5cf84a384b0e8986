"""The example that people copy is right, and shows everything there is."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from actors.switch.configured.providers import LINES, load
from actors.switch.configured.traits import DECLARED
from actors.switch.paying import budget
from bus.settings import Settings

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "deploy" / "examples" / "providers.toml"
KEYS = {"OPENAI_API_KEY": "sk-openai", "DEEPSEEK_API_KEY": "sk-deepseek"}


def test_the_example_is_right_as_it_stands(tmp_path: Path) -> None:
    (tmp_path / "providers.toml").write_bytes(EXAMPLE.read_bytes())
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "vllm.key").touch(mode=0o600)
    (tmp_path / "keys" / "vllm.key").write_text("sk-vllm\n")
    found = load(Settings(tmp_path, KEYS))
    assert found.faults == ()
    assert [one.name for one in found.providers] == ["ollama", "llamacpp", "lmstudio", "vllm", "deepseek", "openai"]
    assert found.providers[-1].traits("gpt-4o").context == 128_000
    assert budget.parse(found.budgets).holders.keys() == {"4f2a91c0"}


def test_the_example_shows_every_line_there_is() -> None:
    tables = tomllib.loads(EXAMPLE.read_text())
    budgets = tables.pop("budgets")
    assert {line for table in tables.values() for line in table} == {*LINES}
    assert set(budgets) == {*budget.SCOPES, "holders"}
    assert set(tables["openai"]["models"]["gpt-4o"]) <= {*DECLARED}


def test_the_guide_says_what_each_capability_means() -> None:
    guide = (ROOT / "deploy" / "guide" / "models.md").read_text()
    assert [line for line in LINES if f"`{line}`" not in guide] == []


def test_the_tables_in_the_guide_can_be_copied(tmp_path: Path) -> None:
    """Each block of TOML on its own; whoever copies one gets no error."""
    guide = (ROOT / "deploy" / "guide" / "models.md").read_text()
    blocks = re.findall(r"```toml\n(.*?)```", guide, re.DOTALL)
    assert len(blocks) >= 3
    for block in blocks:
        (tmp_path / "providers.toml").write_text(block)
        assert load(Settings(tmp_path, KEYS)).faults == (), block
