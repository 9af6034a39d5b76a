"""The embedded stack: NATS, Postgres and every service under one supervisor."""
