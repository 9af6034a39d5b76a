"""What happened to the model."""

from cortex_console.pages.event_list import EventList, Scope
from cortex_console.pages.model_page.shared import ModelView
from cortex_console.ports import Batch


class EventsPart:
    """Below the tab Events."""

    def __init__(self, view: ModelView) -> None:
        self._list = EventList(view.context, Scope(model_id=view.detail.summary.id))

    async def build(self) -> None:
        """Draw it."""
        await self._list.build()

    async def refresh(self) -> None:
        """Nothing: events tell."""

    async def on_batch(self, batch: Batch) -> None:
        """Follow."""
        await self._list.on_batch(batch)

    def leave(self) -> None:
        """Nothing runs."""
