"""Fit, evaluate, checkpoint."""
