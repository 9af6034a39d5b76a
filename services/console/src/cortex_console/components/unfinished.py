"""What was typed and not sent: kept by the tab of the browser, so that a page that is loaded again has it still."""

import json
from collections.abc import Mapping
from typing import Any, cast

from nicegui import ui

from cortex_console.components.page import PageContext

_PATIENCE_S = 10.0


class Unfinished:
    """One thing of one person's, by its name. It leaves the tab when they sign out."""

    def __init__(self, context: PageContext, name: str) -> None:
        self.name = f"{context.me.username}:{name}"

    def keep(self, values: Mapping[str, Any]) -> None:
        """Instead of what was kept before; nothing forgets it."""
        ui.run_javascript(f"cortexUnfinished.keep({json.dumps(self.name)}, {json.dumps(dict(values))})")

    def sent(self, text: str) -> None:
        """One text left the page: it is forgotten, unless another was typed meanwhile."""
        ui.run_javascript(f"cortexUnfinished.sent({json.dumps(self.name)}, {json.dumps(text)})")

    async def back(self) -> dict[str, Any]:
        """What was kept before the page was loaded again. Another visit to the page begins anew. Ask once it is connected."""
        asked = ui.run_javascript(f"cortexUnfinished.back({json.dumps(self.name)})", timeout=_PATIENCE_S)
        found = cast("object", await asked)
        return cast("dict[str, Any]", found) if isinstance(found, dict) else {}
