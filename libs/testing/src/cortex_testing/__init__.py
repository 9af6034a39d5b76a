"""Fakes, contract suites and real-server fixtures for testing Cortex (a pytest plugin)."""
