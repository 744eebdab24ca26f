"""Text for people: what is foreign in it made harmless, and numbers of things."""

from __future__ import annotations


def clean(text: str) -> str:
    """Text without what could drive a terminal or change the order of its letters; lines stay lines."""
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text)


def one_line(text: str) -> str:
    """The same in one line, words one space apart."""
    return " ".join(clean(text).split())


def counted(number: int, what: str) -> str:
    """A number of things, of which ``what`` is one."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
