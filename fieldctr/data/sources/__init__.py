"""Readers of raw tables: one `read` function per publisher's layout."""
