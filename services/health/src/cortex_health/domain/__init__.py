"""Pure decisions: what a probe means, who probes, what an engine's metrics say."""
