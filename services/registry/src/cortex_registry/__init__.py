"""Admin API and single writer of models, keys and usage."""
