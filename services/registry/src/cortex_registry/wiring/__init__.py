"""The composition root in parts: `core.py` makes what all share, one module per area makes its routes and tasks."""
