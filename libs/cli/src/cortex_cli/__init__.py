"""The `cortex` command and the embedded stack."""
