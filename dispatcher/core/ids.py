"""Identifiers: UUIDv7 as RFC 9562, section 5.7 lays it out (48 bits of Unix milliseconds, then random bits)."""

from __future__ import annotations


def uuid7(now: int, random_bits: int) -> str:
    """A UUIDv7 in its usual form.

    Args:
        now: milliseconds since the Unix epoch.
        random_bits: at least 74 random bits (more are ignored).
    """
    rand_a = random_bits >> 62 & 0xFFF
    rand_b = random_bits & 0x3FFF_FFFF_FFFF_FFFF
    value = (now & 0xFFFF_FFFF_FFFF) << 80 | 0x7 << 76 | rand_a << 64 | 0b10 << 62 | rand_b
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
