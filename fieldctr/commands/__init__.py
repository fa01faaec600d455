"""One short story per command."""
