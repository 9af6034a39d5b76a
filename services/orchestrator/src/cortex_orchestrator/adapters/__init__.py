"""Adapters: vendor code ends here."""
