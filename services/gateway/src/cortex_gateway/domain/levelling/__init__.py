"""What differs between the engines, made equal: a small module per difference, put together in `ask.py`."""

from cortex_gateway.domain.levelling.engine_errors import EngineError, map_engine_error, map_stream_error

__all__ = ["EngineError", "map_engine_error", "map_stream_error"]
