"""The drawings of the documentation: files and program are one, and what cannot be read is not drawn."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from dev.diagrams import DRAWINGS, FOLDER
from dev.drawing import Drawing, DrawingError
from tests.acceptance.readme import ROOT


@pytest.mark.parametrize("name", DRAWINGS)
def test_files_are_what_the_program_draws(name: str) -> None:
    """And well-formed, with a title for who cannot see them."""
    text = (FOLDER / f"{name}.svg").read_text(encoding="utf-8")
    assert text == DRAWINGS[name]().svg(), "draw them anew: python -m dev.diagrams"
    title = ElementTree.fromstring(text).find("{http://www.w3.org/2000/svg}title")
    assert title is not None
    assert title.text


def test_every_drawing_is_on_a_page_and_told_in_words() -> None:
    """No file lies about, and each picture has a text beside it."""
    pages = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs").rglob("*.md"))
    shown = dict(re.findall(r"!\[([^\]]*)\]\(images/([\w-]+)\.svg\)", pages))
    assert set(shown.values()) == set(DRAWINGS)
    assert all(len(words) > 30 for words in shown)
    assert {path.stem for path in FOLDER.glob("*.svg")} == set(DRAWINGS)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda d: d.box(10, 10, 60, 40, "app", "much too long"), "needs"),
        (lambda d: d.box(10, 10, 100, 30, "app", "one", "two", "three"), "lines need"),
        (lambda d: d.box(150, 10, 100, 40, "app", "x"), "leaves the drawing"),
        (lambda d: (d.box(10, 10, 100, 40, "app", "x"), d.note(90, 40, "on it")), "lies on"),
        (lambda d: d.box(10, 10, 100, 40, "other", "x"), "no kind"),
        (lambda d: d.way((0, 0), (0, 101)), "leaves the drawing"),
    ],
    ids=["wide", "high", "outside", "overlap", "kind", "arrow"],
)
def test_what_does_not_fit_is_an_error(wrong: object, said: str) -> None:
    """Each thing that a reader could not read."""
    assert callable(wrong)
    with pytest.raises(DrawingError, match=said):
        wrong(Drawing(200, 100, "a drawing"))
