"""``dispatcher doctor``: gathers what the judgements of `dispatcher.core.diagnosis` need, each check by itself."""

from dispatcher.services.doctor.run import Local, diagnose

__all__ = ["Local", "diagnose"]
