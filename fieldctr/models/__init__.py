"""Backbones: one file each, found by their YAML in conf/model."""
