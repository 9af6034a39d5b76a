"""Settings, logging, messaging, KV views, leases and the service runner of Cortex."""
