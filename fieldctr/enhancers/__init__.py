"""Enhancers: one file each, found by their YAML in conf/enhancer."""
