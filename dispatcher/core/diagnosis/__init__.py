"""What ``dispatcher doctor`` concludes from what it found: facts in, findings out."""

from dispatcher.core.diagnosis.finding import CHECKS, Finding, Status, exit_code, failed, fine, unchecked, warning

__all__ = ["CHECKS", "Finding", "Status", "exit_code", "failed", "fine", "unchecked", "warning"]
