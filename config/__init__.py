"""Settings, read once at the edge and passed down as values. ``config/default.yaml`` explains every key."""

from config.base import SettingsError
from config.settings import Settings, load_settings

__all__ = ["Settings", "SettingsError", "load_settings"]
