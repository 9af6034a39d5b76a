"""What happens, live and past."""

from cortex_console.adapters.models_api import ModelsApi
from cortex_console.components.header import page_header
from cortex_console.components.page import Page, PageContext
from cortex_console.pages.event_list import EventList, Scope
from cortex_contracts.rights import Right


async def build(context: PageContext) -> None:
    """Draw the page."""
    page_header("Events", "What happens to models, engines, hosts and keys, as it happens.")
    models = await ModelsApi(context.api).list_all(archived=True)
    names = {model.id: model.name for model in models}
    listed = EventList(context, Scope(names=names, correlation=context.query.get("correlation", "")))
    await listed.build()
    context.on_events(listed.on_batch)


EVENTS = Page("/events", "Events", build, Right.EVENTS_READ, icon="o_bolt", group="Observe")
