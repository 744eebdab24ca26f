"""docs/configuration.md says what the settings are: every key with its default, and examples that load."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from config import Settings, load_settings
from config.settings import CONFIG_FILE_VARIABLE, DEFAULTS
from config.types import TypeSettings
from dev.settings_table import PAGE, with_table
from dispatcher.core.types import TypeTable

TEXT = PAGE.read_text()
EXAMPLES = re.findall(r"^```yaml example\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def test_the_table_is_that_of_the_settings() -> None:
    """If it is not, `.venv/bin/python -m dev.settings_table` writes it anew."""
    assert with_table(TEXT) == TEXT, "run: .venv/bin/python -m dev.settings_table"


def test_every_setting_has_a_row_with_its_default() -> None:
    """Looked up without the code that makes the table."""
    found = re.findall(r"^\| `(\w+\.\w+)` \| `(.*?)` \| ", TEXT, re.MULTILINE)
    rows = {path: json.loads(default) for path, default in found}
    values = yaml.safe_load(DEFAULTS.read_text())
    sections = {name: keys for name, keys in values.items() if name not in ("lanes", "types")}
    assert rows == {f"{name}.{key}": value for name, keys in sections.items() for key, value in keys.items()}
    assert set(values) == set(Settings.model_fields)
    assert f"`lanes` (default `{json.dumps(values['lanes'])}`)" in TEXT
    assert f"`types` (default `{json.dumps(values['types'])}`)" in TEXT


def test_every_key_of_a_type_has_a_row() -> None:
    """In the table of the section on types."""
    section = TEXT.split("## Types")[1].split("**Which entry counts")[0]
    assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == list(TypeSettings.model_fields)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda text: text.splitlines()[2].strip())
def test_an_example_loads(tmp_path: Path, example: str) -> None:
    """As the file that DISPATCHER_CONFIG names."""
    file = tmp_path / "mine.yaml"
    file.write_text(example)
    assert load_settings({CONFIG_FILE_VARIABLE: str(file)}).types


def test_the_example_of_types_means_what_the_page_says(tmp_path: Path) -> None:
    """Key by key from the most specific entry."""
    assert len(EXAMPLES) == 2
    file = tmp_path / "mine.yaml"
    file.write_text(EXAMPLES[1])
    types = TypeTable(load_settings({CONFIG_FILE_VARIABLE: str(file)}).type_entries)
    assert (types.of("email.send").retention, types.of("email.send").timeout) == (30, 30)
    assert types.of("email.send").payload({"card": {"number": 1}, "attachments": [{"content": "x", "name": "y"}]}) == {
        "card": {"number": "[redacted]"},
        "attachments": [{"content": "[redacted]", "name": "y"}],
    }
    assert (types.of("report.build").lane, types.of("report.build").retention) == ("slow", 365)
    assert (types.of("login.check").keeps, types.of("login.check").retention) == (True, None)
    assert not types.of("email.send.now").private


def test_the_order_that_the_page_gives_is_so() -> None:
    """Taking away the first of them makes the next one count."""
    (sentence,) = re.findall(r"So for `email\.send`: (.*?)\. The", TEXT)
    names = re.findall(r"`([^`]+)`", sentence)
    assert len(names) == 6
    for at in range(len(names)):
        entries = {name: {"timeout": float(names.index(name) + 1)} for name in reversed(names[at:])}
        assert TypeTable(entries).of("email.send").timeout == at + 1


def test_the_variable_that_the_page_shows() -> None:
    """With the JSON in it."""
    (value,) = re.findall(r"`DISPATCHER_TYPES='(.*?)'`", TEXT)
    assert load_settings({"DISPATCHER_TYPES": value, "DISPATCHER_LANES": '["default", "slow"]'}).types
