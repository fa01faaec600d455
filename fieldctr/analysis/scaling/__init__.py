"""Scaling laws of finished runs."""
