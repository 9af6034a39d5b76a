"""Routes of the admin API, one module per area: parse, call a handler, answer."""
