"""The gateway against other proxies: `python -m tests.bench.gateway --help`."""
