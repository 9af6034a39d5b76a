"""The admin API, its stream of events, the gateway."""
