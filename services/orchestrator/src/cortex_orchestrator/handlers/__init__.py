"""Handlers: load, decide, act, report."""
