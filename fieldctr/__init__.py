"""fieldctr: config-driven CTR experiments around the field."""

__version__ = "0.1.0"
