"""Revisions of a model: who changed what, compared, and rolled back."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime

from cortex_console.adapters.model_form_api import ModelFormApi
from cortex_console.components import notify
from cortex_console.components.badge import badge
from cortex_console.components.buttons import button
from cortex_console.components.dialogs import dialog
from cortex_console.components.text import Text, box, heading, hint
from cortex_console.domain.form.draft import Change
from cortex_console.domain.form.fields import FormField
from cortex_console.domain.form.revisions import Revision, differences
from cortex_console.domain.formatting import ago_text, time_text
from cortex_console.domain.states import Tone


class History:
    """Drawn where it is made. `reload` is called after a roll back."""

    def __init__(
        self,
        api: ModelFormApi,
        model_id: str,
        fields: Mapping[str, FormField],
        reload: Callable[[], Awaitable[None]],
    ) -> None:
        self._api = api
        self._id = model_id
        self._fields = fields
        self._reload = reload
        self._revisions: list[Revision] = []
        hint("Every change makes a version. Rolling back makes a new one like an old one; nothing is lost.")
        self._list = box("c-card mf-library")

    async def read(self) -> None:
        """Read them, and show them if there are others."""
        found = await self._api.revisions(self._id)
        if found == self._revisions:
            return
        self._revisions = found
        self._list.clear()
        with self._list:
            for position, one in enumerate(self._revisions):
                self._row(one, current=position == 0)

    def _row(self, one: Revision, *, current: bool) -> None:
        async def compare() -> None:
            await self._compare(one)

        with box("mf-revision"):
            Text("span", f"Version {one.version}", "c-strong")
            with box("mf-revision-text"):
                Text("span", one.action + (f": {one.summary}" if one.summary else ""))
                when = Text("span", f" · {one.author}, {ago_text(one.at, datetime.now(UTC))}", "c-muted")
                when.props["title"] = time_text(one.at)
            if current:
                badge("now", Tone.GOOD)
                return
            made = button("Compare", compare, icon="o_difference").classes("mf-small")
            made.props["aria-label"] = f"Compare version {one.version} with now"

    async def _compare(self, one: Revision) -> None:
        answer = await self._api.compare(self._id, one.version)
        found = differences(answer, self._fields, backwards=True)
        title = f"Back to version {one.version}"
        with dialog(title) as made:
            heading(title, 2)
            hint(f"{one.action} by {one.author}, {time_text(one.at)}.")
            if found:
                _differences(found, "Now", f"Version {one.version}")
                hint("Running replicas are replaced where the engine must be started anew.")
            else:
                Text("p", "Its settings are the same as now.")
            with box("c-dialog-foot"):
                button("Close", lambda: made.submit(False), kind="quiet")
                if found:
                    button(f"Roll back to {one.version}", lambda: made.submit(True), kind="primary")
        wanted = await made
        made.delete()
        if wanted:
            await self._api.roll_back(self._id, one.version, self._revisions[0].version)
            notify.done(f"Rolled back to version {one.version}.")
            await self._reload()


def _differences(found: Sequence[Change], before: str, after: str) -> None:
    with box("mf-diff-wrap"), box("mf-diff", "table"):
        with box("", "thead"), box("", "tr"):
            for head in ("Setting", before, after):
                Text("th", head).props('scope="col"')
        with box("", "tbody"):
            for one in found:
                with box("", "tr"):
                    Text("td", one.label, "c-strong")
                    Text("td", one.before)
                    Text("td", one.after)
