"""Events for humans and programs: the log, its live stream, webhooks, the audit log, and why."""

from cortex_registry.wiring.core import Core, Part


def events_part(core: Core) -> Part:
    """Nothing yet."""
    del core
    return Part()
