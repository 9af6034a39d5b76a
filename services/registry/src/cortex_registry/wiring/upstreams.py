"""External upstreams."""

from cortex_registry.wiring.core import Core, Part


def upstreams_part(core: Core) -> Part:
    """Nothing yet."""
    del core
    return Part()
