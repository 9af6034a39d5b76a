"""Postgres and NATS behind the registry's ports; vendor types end here."""
