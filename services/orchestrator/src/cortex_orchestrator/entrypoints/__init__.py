"""Entrypoints: parse, call a handler, nothing else."""
