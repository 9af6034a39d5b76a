"""HTTP and message entry points: parse, call a handler, answer."""
