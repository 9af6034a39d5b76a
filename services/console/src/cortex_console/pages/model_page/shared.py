"""What the parts of a model's page share."""

from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime

from cortex_console.adapters.watching_api import WatchingApi
from cortex_console.components.page import PageContext
from cortex_console.domain.model_detail import EngineLoad, ModelDetail, Replica


@dataclass(frozen=True, slots=True)
class Sample:
    """The load at one moment."""

    at: datetime
    load: EngineLoad


@dataclass(slots=True)
class ModelView:
    """The model as one browser looks at it."""

    context: PageContext
    api: WatchingApi
    detail: ModelDetail
    samples: deque[Sample]
    """Since the page was opened, the oldest first."""
    read: Callable[[], Awaitable[None]]
    """Read the model anew."""
    trouble: Replica | None = None
    """What failed last, while it is tried again."""
    shown: tuple[object, ...] = field(default=())
