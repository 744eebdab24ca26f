"""Tests: unit (no server), integration (real servers), faults (kills), acceptance (whole journeys)."""
