"""One function or loop per command: load, decide, act, save."""
