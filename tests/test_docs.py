"""The documents say what the code does."""

from __future__ import annotations

import re
from dataclasses import MISSING, fields
from pathlib import Path

import pytest

from gtask.config import ServiceSettings, Settings

ROOT = Path(__file__).resolve().parents[1]


def documented() -> dict[str, str]:
    text = (ROOT / "docs/configuration.md").read_text()
    return dict(re.findall(r"^\| `(\w+)` \| (\S*) ?\|", text, re.MULTILINE))


def as_written(value: object) -> str:
    if value is MISSING or value in ("", ()):
        return ""
    if isinstance(value, float):
        value = int(value)
    return f"`{value}`"


def test_every_key_is_documented_with_its_default_and_no_other():
    keys = {
        one.name: as_written(one.default)
        for kind in (Settings, ServiceSettings)
        for one in fields(kind)
        if "read" in one.metadata
    }
    keys["socket_mode"] = "`660`"
    keys["store_mode"] = "`600`"
    assert documented() == keys


@pytest.mark.parametrize("page", sorted(ROOT.glob("docs/*.md")) + sorted(ROOT.glob("*.md")))
def test_links_between_documents_lead_somewhere(page: Path):
    text = page.read_text()
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text) + re.findall(r"\bdocs/\w+\.md", text)
    for target in targets:
        assert (page.parent / target).exists() or (ROOT / target).exists(), target
