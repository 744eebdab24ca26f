"""The documentation site: built without a warning, whole, and loading nothing from another host."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.acceptance.readme import ROOT

#: Attributes whose address a browser fetches by itself. Those of `a` and `form` are for whoever clicks.
LOADING = {"src", "srcset", "data", "poster", "background"}
#: Relations of `link` that only tell; every other one fetches, or connects.
TELLING = {"canonical", "prev", "next", "alternate"}
IN_CSS = re.compile(r"url\(\s*['\"]?([^'\")]+)|@import\s+['\"]([^'\"]+)")
POLICY = "default-src 'self'"


class Loads(HTMLParser):
    """What a page makes the browser fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.policy = ""
        self._style = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self._style = tag == "style"
        self.found += [values[name].split()[0] for name in LOADING & values.keys() if values[name]]
        self.found += in_css(values.get("style", ""))
        if tag == "link" and values.get("rel") not in TELLING:
            self.found.append(values["href"])
        if values.get("http-equiv", "").lower() == "content-security-policy":
            self.policy = values["content"]

    def handle_endtag(self, tag: str) -> None:
        self._style = False

    def handle_data(self, data: str) -> None:
        if self._style:
            self.found += in_css(data)


def in_css(text: str) -> list[str]:
    """The addresses that a style sheet fetches."""
    return [url or imported for url, imported in IN_CSS.findall(text)]


def elsewhere(address: str) -> bool:
    """Whether an address names a host."""
    return bool(urlsplit(address).netloc)


def build(folder: Path, target: Path) -> subprocess.CompletedProcess[str]:
    """MkDocs, as `make docs` calls it."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(target)]
    env = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built strictly."""
    target = tmp_path_factory.mktemp("site")
    done = build(ROOT, target)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return target


def test_every_page_is_built(site: Path) -> None:
    """Of docs/ and of the project itself."""
    for page in (ROOT / "docs").rglob("*.md"):
        built = page.relative_to(ROOT / "docs").with_suffix(".html")
        assert (site / built.parent / built.name.replace("README", "index")).is_file(), page
    for page in (
        "index.html",
        "CONTRIBUTING.html",
        "CHANGELOG.html",
        "examples/index.html",
        "config/default.yaml.html",
    ):
        assert (site / "repository" / page).is_file(), page


def test_pages_load_nothing_from_another_host(site: Path) -> None:
    """And what they load is there; the browser refuses the rest, whatever a script tries."""
    pages = sorted(site.rglob("*.html"))
    for page in pages:
        loads = Loads(page.read_text(encoding="utf-8"))
        assert loads.policy.startswith(POLICY), page
        assert "http" not in loads.policy, page
        assert any(address.endswith(".css") for address in loads.found), page
        for address in loads.found:
            assert not elsewhere(address), f"{page.name} loads {address}"
            if not address.startswith(("data:", "#")) and page.name != "404.html":
                assert (page.parent / unquote(urlsplit(address).path)).exists(), f"{page.name} loads {address}"


def test_style_sheets_and_pictures_load_nothing_from_another_host(site: Path) -> None:
    """SVG pictures may fetch, too."""
    sheets = [*site.rglob("*.css"), *site.rglob("*.svg")]
    assert any(sheet.name.startswith("main.") for sheet in sheets)
    for sheet in sheets:
        text = sheet.read_text(encoding="utf-8")
        linked = re.findall(r"(?:href|src)=\"([^\"]+)\"", text)
        assert not [address for address in in_css(text) + linked if elsewhere(address)], sheet.name


def test_what_loads_from_elsewhere_is_found() -> None:
    """Each way that the tests above look for."""
    there = "https://elsewhere.example/x"
    page = f"""<meta http-equiv="Content-Security-Policy" content="default-src 'self'">
        <link rel="canonical" href="{there}"><a href="{there}">click</a>
        <link rel="preconnect" href="{there}1"><link rel="stylesheet" href="{there}2"><script src="{there}3"></script>
        <img src="{there}4"><img srcset="//elsewhere.example/x5 2x"><i style="background: url({there}6)"></i>
        <style>@import "{there}7"; b {{background: url('{there}8')}}</style><object data="{there}9"></object>"""
    loads = Loads(page)
    assert sorted(address[-1] for address in loads.found if elsewhere(address)) == list("123456789")
    assert loads.policy.startswith(POLICY)


def small(folder: Path, text: str) -> Path:
    """A site of two pages with the settings of mkdocs.yml; the second page has an anchor `here`."""
    settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").split("\nnav:")[0]
    settings = re.sub(r"^watch:.*\n", "", settings, flags=re.MULTILINE)
    (folder / "docs").mkdir()
    shutil.copytree(ROOT / "dev" / "theme", folder / "dev" / "theme")
    shutil.copy(ROOT / "dev" / "site.py", folder / "dev")
    (folder / "mkdocs.yml").write_text(f"{settings}\nnav: [index.md, two.md, repository/README.md]\n")
    (folder / "README.md").write_text("# Readme\n")
    (folder / "docs" / "index.md").write_text(f"# One\n\n{text}\n")
    (folder / "docs" / "two.md").write_text("# Two\n\n## Here\n")
    return folder


def test_what_leads_somewhere_is_built(tmp_path: Path) -> None:
    """A file outside docs/ becomes a page; a table's escaped bar and a block's second word are as on a code host."""
    text = "[x](two.md#here) [y](../mkdocs.yml)\n\n| a |\n|---|\n| `b \\| c` |\n\n```json work\n{}\n```"
    done = build(small(tmp_path, text), tmp_path / "site")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "site" / "index.html").read_text()
    assert 'href="two.html#here"' in page
    assert 'href="repository/mkdocs.yml.html"' in page
    assert "<code>b | c</code>" in page
    assert page.count('class="highlight"') == 1
    assert "site_name" in (tmp_path / "site" / "repository" / "mkdocs.yml.html").read_text()


def test_what_leads_nowhere_fails_the_build(tmp_path: Path) -> None:
    """A page, a file, an anchor, an absolute link, a page outside the navigation: each is told."""
    text = "[a](missing.md) [b](../missing.yaml) [c](two.md#nowhere) [d](/two.md) [e](#nothing)"
    folder = small(tmp_path, text)
    (folder / "docs" / "lost.md").write_text("# Lost\n")
    done = build(folder, tmp_path / "site")
    assert done.returncode != 0
    for said in ("'missing.md'", "'../missing.yaml'", "'two.md#nowhere'", "'/two.md'", "'#nothing'", "- lost.md"):
        assert said in done.stderr, said


def test_the_decisions_are_all_listed() -> None:
    """docs/adr/README.md has each, under its number."""
    folder = ROOT / "docs" / "adr"
    listed = re.findall(r"^(\d+)\. \[.*\]\((.*)\)$", (folder / "README.md").read_text(), re.MULTILINE)
    files = sorted(path.name for path in folder.glob("0*.md"))
    assert listed == [(str(int(name[:4])), name) for name in files]
