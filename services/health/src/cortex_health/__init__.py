"""Prober of the engines, single writer of verdicts."""
