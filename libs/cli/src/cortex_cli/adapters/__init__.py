"""HTTP and NATS clients behind the commands."""
