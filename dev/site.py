"""What MkDocs does besides, when it builds the documentation site (`hooks` in mkdocs.yml).

Pages link as a code host needs it: `../config/default.yaml`, `../examples/README.md`. So the files outside docs/ that a
page links to become pages too, under `repository/`, and every link is written anew as the site needs it.
"""

import posixpath
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

#: Pages of their own, whether or not another page links to them.
PROJECT_PAGES = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "examples/README.md")
DOCS = "docs/"
#: Where the files outside docs/ are on the site.
BROUGHT = "repository/"

_BLOCK = re.compile(r"^(`{3,})\w*[^\n]*\n.*?^\1$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<=\]\()(?P<target>[^()\s#:]+)(?=[#)])")
_KIND = re.compile(r"^(```\w+) [^\n`]+$", re.MULTILINE)
_CODE_IN_ROW = re.compile(r"`[^`\n]*`(?=[^\n]*\|$)", re.MULTILINE)
_LANGUAGES = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".json": "json", ".toml": "toml", ".sh": "sh"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what pages link to outside docs/, and what those link to in turn."""
    root = _root(config)
    waiting = [path for path in PROJECT_PAGES if (root / path).is_file()]
    waiting += [DOCS + file.src_uri for file in files.documentation_pages()]
    seen = set(waiting)
    while waiting:
        path = waiting.pop()
        if not path.startswith(DOCS):
            files.append(_brought(path, config))
        if path.endswith(".md"):
            found = {target for target in _linked(root, path) if not target.startswith(DOCS)}
            waiting += found - seen
            seen |= found
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Write the links of a page as the site needs them, and the two things that MkDocs reads in another way.

    `json work` is JSON to a reader. In a row of a table a code host needs `\\|` within code, and MkDocs needs `|`.
    """
    root, source = _root(config), _repository_path(page.file.src_uri)

    def rewritten(match: re.Match[str]) -> str:
        target = _resolve(root, source, match["target"])
        if target is None:
            return match[0]  # MkDocs says that it leads nowhere
        return posixpath.relpath(_site_uri(target), posixpath.dirname(page.file.src_uri) or ".")

    def changed(text: str) -> str:
        return _CODE_IN_ROW.sub(lambda code: code[0].replace(r"\|", "|"), _LINK.sub(rewritten, text))

    return _KIND.sub(r"\1", _outside_blocks(markdown, changed))


def _brought(path: str, config: MkDocsConfig) -> File:
    """A file of the repository as a page: Markdown as it is, anything else as a block of code."""
    uri, real = _site_uri(path), _root(config) / path
    level = InclusionLevel.UNDEFINED if path.endswith(".md") else InclusionLevel.NOT_IN_NAV
    if path.endswith(".md"):
        return File.generated(config, uri, abs_src_path=str(real), inclusion=level)
    text = real.read_text(encoding="utf-8")
    language = _LANGUAGES.get(real.suffix, "text")
    return File.generated(config, uri, content=f"# `{path}`\n\n``````{language}\n{text}\n``````\n", inclusion=level)


def _linked(root: Path, path: str) -> Iterator[str]:
    """The files of the repository that a Markdown file links to."""
    for match in _LINK.finditer(_BLOCK.sub("", (root / path).read_text(encoding="utf-8"))):
        found = _resolve(root, path, match["target"])
        if found is not None:
            yield found


def _resolve(root: Path, source: str, target: str) -> str | None:
    """The repository's path of what a link in `source` names (of a folder, its README.md); None if there is nothing."""
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
    if (root / path).is_dir():
        path = posixpath.join(path, "README.md")
    return path if not path.startswith("..") and (root / path).is_file() else None


def _site_uri(path: str) -> str:
    """Where a file of the repository is on the site; pictures and the like of docs/ keep their names."""
    if path.startswith(DOCS):
        return path.removeprefix(DOCS)
    return BROUGHT + (path if path.endswith(".md") else f"{path}.md")


def _repository_path(uri: str) -> str:
    """The reverse: of a page that is Markdown in the repository."""
    return uri.removeprefix(BROUGHT) if uri.startswith(BROUGHT) else DOCS + uri


def _outside_blocks(markdown: str, change: Callable[[str], str]) -> str:
    """The text with everything changed that is in no block of code."""
    parts, end = [], 0
    for block in _BLOCK.finditer(markdown):
        parts += [change(markdown[end : block.start()]), block[0]]
        end = block.end()
    return "".join([*parts, change(markdown[end:])])


def _root(config: MkDocsConfig) -> Path:
    return Path(config.config_file_path).parent
