"""Typed events, KV documents, subjects and streams that the Cortex services share.

Nothing here does I/O. Within a version every change is additive: see CHANGELOG.md and tests/golden.
"""
