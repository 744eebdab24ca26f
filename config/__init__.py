"""Settings, read once at the edge and passed down as values. ``config/default.yaml`` explains every key."""

from config.settings import Settings, SettingsError, load_settings

__all__ = ["Settings", "SettingsError", "load_settings"]
