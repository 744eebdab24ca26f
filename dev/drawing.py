"""Drawings of the documentation, as SVG: boxes, arrows and words, readable on light and on dark pages.

A text that does not fit its box, and things that lie on one another, are errors: a drawing is right when it is drawn.
Lengths are in pixels; x grows to the right, y downwards.
"""

from dataclasses import dataclass
from html import escape

#: What one character takes of its font size, at most on average, in the fonts named below.
_WIDTH = 0.58
_SIZE = 14
_SMALL = 12
_LINE = 1.3

KINDS = ("app", "service", "exchange", "queue", "store", "good", "plain", "bad")

_STYLE = """
  svg { --paper: #ffffff; --ink: #1b1f2a; --soft: #566072; --line: #66708a;
    --app: #fdebd0; --service: #dbe6ff; --exchange: #e9dcf7; --queue: #eef1f6;
    --store: #d9f2e3; --good: #d9f2e3; --plain: #eef1f6; --bad: #fbdcdc; }
  @media (prefers-color-scheme: dark) {
    svg { --paper: #1e2129; --ink: #eceef4; --soft: #aab3c5; --line: #8d98b0;
      --app: #5a4320; --service: #2b4378; --exchange: #4c3568; --queue: #333947;
      --store: #235239; --good: #235239; --plain: #333947; --bad: #6b2c2f; }
  }
  text { font-family: system-ui, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", Arial, sans-serif;
    fill: var(--ink); }
  .small { font-size: 12px; fill: var(--soft); }
  .name { font-size: 14px; }
  .bold { font-weight: 600; }
  .paper { fill: var(--paper); }
  .shape { stroke: var(--line); stroke-width: 1.2; }
  .frame { fill: none; stroke: var(--line); stroke-dasharray: 5 4; }
  .way { fill: none; stroke: var(--line); stroke-width: 1.6; }
  .seldom { stroke-dasharray: 6 4; }
  #head path { fill: var(--line); }
"""


class DrawingError(ValueError):
    """Something does not fit, or lies on something else."""


@dataclass(frozen=True)
class Place:
    """A rectangle that something takes."""

    x: float
    y: float
    width: float
    height: float
    what: str

    def meets(self, other: "Place") -> bool:
        """Whether they share more than an edge."""
        across = self.x < other.x + other.width and other.x < self.x + self.width
        return across and self.y < other.y + other.height and other.y < self.y + self.height


class Drawing:
    """A drawing under way. `title` is what a reader who cannot see it is told."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self.width, self.height, self.title = width, height, title
        self._under: list[str] = []
        self._over: list[str] = []
        self._places: list[Place] = []

    def box(self, x: float, y: float, width: float, height: float, kind: str, name: str, *more: str) -> None:
        """A thing with its name, and smaller lines below it. Kinds: those of `KINDS`."""
        self._take(Place(x, y, width, height, name))
        self._under.append(_shape(x, y, width, height, kind))
        inner = width - (26 if kind == "queue" else 12)
        lines = [(name, _SIZE, "name bold"), *((text, _SMALL, "small") for text in more)]
        total = sum(size * _LINE for _, size, _ in lines)
        if total > height:
            raise DrawingError(f"{name}: {len(lines)} lines need {total:.0f}, the box has {height}")
        middle = x + (width - (14 if kind == "queue" else 0)) / 2
        top = y + (height - total) / 2 + (4 if kind == "store" else 0)
        for text, size, style in lines:
            if _wide(text, size) > inner:
                raise DrawingError(f"{text!r} needs {_wide(text, size):.0f}, the box has {inner}")
            top += size * _LINE
            self._over.append(_text(middle, top - size * 0.35, text, style, "middle"))

    def frame(self, x: float, y: float, width: float, height: float, name: str) -> None:
        """A dashed border around several things, with its name inside at the top."""
        self._under.insert(0, f'<rect class="frame" x="{x}" y="{y}" width="{width}" height="{height}" rx="8"/>')
        self.note(x + 10, y + 18, name)

    def note(self, x: float, y: float, *lines: str, anchor: str = "start", strong: bool = False) -> None:
        """Small words; (x, y) is where the first line's letters stand."""
        size, style = (_SIZE, "name bold") if strong else (_SMALL, "small")
        for number, text in enumerate(lines):
            wide, base = _wide(text, size), y + number * size * _LINE
            left = {"start": x, "middle": x - wide / 2, "end": x - wide}[anchor]
            self._take(Place(left, base - size * 0.8, wide, size, text))
            self._over.append(_text(x, base, text, style, anchor))

    def way(self, *points: tuple[float, float], seldom: bool = False) -> None:
        """An arrow along the points; dashed for what happens seldom."""
        if len(points) < 2:
            raise DrawingError("an arrow needs two points")
        for x, y in points:
            if not (0 <= x <= self.width and 0 <= y <= self.height):
                raise DrawingError(f"an arrow leaves the drawing at {x}, {y}")
        path = "M" + " L".join(f"{x} {y}" for x, y in points)
        self._under.append(f'<path class="way{" seldom" if seldom else ""}" d="{path}" marker-end="url(#head)"/>')

    def svg(self) -> str:
        """The whole drawing."""
        size = f'viewBox="0 0 {self.width} {self.height}" width="{self.width}" height="{self.height}"'
        head = '<path d="M0 0 L10 5 L0 10 z"/>'
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">',
            f"<title>{escape(self.title)}</title>",
            f"<style>{_STYLE}</style>",
            '<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" '
            f'orient="auto-start-reverse">{head}</marker></defs>',
            f'<rect class="paper" width="{self.width}" height="{self.height}" rx="10"/>',
            *self._under,
            *self._over,
            "</svg>",
        ]
        return "\n".join(parts) + "\n"

    def _take(self, place: Place) -> None:
        inside = place.x >= 0 and place.y >= 0
        if not inside or place.x + place.width > self.width or place.y + place.height > self.height:
            raise DrawingError(f"{place.what!r} leaves the drawing")
        for other in self._places:
            if place.meets(other):
                raise DrawingError(f"{place.what!r} lies on {other.what!r}")
        self._places.append(place)


def _wide(text: str, size: float) -> float:
    return len(text) * size * _WIDTH


def _text(x: float, y: float, text: str, style: str, anchor: str) -> str:
    return f'<text class="{style}" x="{x:g}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _shape(x: float, y: float, width: float, height: float, kind: str) -> str:
    if kind not in KINDS:
        raise DrawingError(f"there is no kind {kind!r}")
    fill = f'class="shape" style="fill: var(--{kind})"'
    if kind == "store":
        top, low, half = y + 8, y + height - 8, width / 2
        arc = f"a{half} 8 0 0"
        body = f"M{x} {top} {arc} 1 {width} 0 V{low} {arc} 1 {-width} 0 z"
        return f'<path {fill} d="{body}"/><path class="shape" style="fill: none" d="M{x} {top} {arc} 0 {width} 0"/>'
    round_ = {"exchange": height / 2, "queue": 3}.get(kind, 8)
    rect = f'<rect {fill} x="{x}" y="{y}" width="{width}" height="{height}" rx="{round_}"/>'
    if kind != "queue":
        return rect
    bars = "".join(f"M{x + width - gap} {y + 5} V{y + height - 5} " for gap in (6, 11, 16))
    return f'{rect}<path class="shape" d="{bars.strip()}"/>'
