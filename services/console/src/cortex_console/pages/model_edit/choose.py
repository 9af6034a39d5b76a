"""What a new model can be made of: the models folder, or a repository."""

import asyncio
from collections.abc import Sequence
from urllib.parse import urlencode

from nicegui import ui

from cortex_console.adapters.model_form_api import ModelFormApi
from cortex_console.components import notify
from cortex_console.components.badge import badge, engine_badge, tag
from cortex_console.components.buttons import button, link_button
from cortex_console.components.empty import empty_state, error_state
from cortex_console.components.page import PageContext
from cortex_console.components.soon import soon
from cortex_console.components.text import Text, box, heading, hint, labelled
from cortex_console.domain.form.library import LibraryEntry, beginning, ordered
from cortex_console.domain.form.memory import advice
from cortex_console.domain.shapes import text
from cortex_console.domain.states import Tone
from cortex_console.errors import ConsoleError
from cortex_console.ports import Batch

_MOST_SHOWN = 100
AGAIN_S = 5.0
_ENGINES = {
    "llamacpp": ("llama.cpp", "For GGUF files. Runs on the CPU, on GPUs, or on both; small and quick to start."),
    "vllm": ("vLLM", "For safetensors, from a folder or Hugging Face. Most tokens per second for many people on GPUs."),
}


async def build_choice(context: PageContext) -> None:
    """Draw it."""
    choice = Choice(context)
    choice.build()
    soon(choice.read)
    context.on_events(choice.on_events)


class Choice:
    """The choice of one browser."""

    def __init__(self, context: PageContext) -> None:
        self._api = ModelFormApi(context.api)
        self._engine = context.query.get("engine", "")
        self._entries: list[LibraryEntry] = []
        self._off: dict[str, str] = {}
        self._folder = ""
        self._complete = True

    def build(self) -> None:
        """Draw what needs nobody's answer."""
        with box("mf-engines").props('role="group" aria-label="Engine"'):
            self._cards = {engine: self._card(engine) for engine in _ENGINES}
        self._repository = box("c-card")
        with self._repository:
            self._make_repository()
        with box("c-filters").props('role="search"'):
            self._search = ui.input(placeholder="Search the models folder").props("outlined dense clearable")
            labelled(self._search.props('type="search" debounce="200"').classes("c-search"), "Search the models folder")
            box("c-spring")
            self._count = Text("span", "", "c-hint").props('role="status"')
            button("Look again", self._look_again, icon="o_refresh", kind="quiet")
        self._search.on_value_change(self._show)
        self._list = box("c-stack")
        with self._list:
            ui.skeleton().props("height=220px")
        self._mark()

    async def read(self, *, refresh: bool = False) -> None:
        """Read the models folder; what cannot be read now is said, and tried again."""
        try:
            (self._entries, page), self._folder, self._off = await asyncio.gather(
                self._api.library(refresh=refresh), self._api.folder(), self._api.engines_off()
            )
        except ConsoleError as error:
            if error.is_signed_out:
                raise
            self._list.clear()
            with self._list:
                error_state(error)
            with self._repository:
                ui.timer(AGAIN_S, self.read, once=True)
            return
        self._complete = bool(page.get("complete", True))
        self._show()

    async def on_events(self, batch: Batch) -> None:
        """A file came, a set was merged, or the feed had a gap: what lies there may be another."""
        if batch.has("gguf.inspected", "gguf.rejected", "gguf.merged"):
            await self.read()

    async def _look_again(self) -> None:
        await self.read(refresh=True)

    def _card(self, engine: str) -> ui.button:
        name, said = _ENGINES[engine]
        made = ui.button(color=None, on_click=lambda: self._choose(engine)).props("no-caps flat").classes("mf-engine")
        with made:
            Text("span", name, "c-strong mf-engine-name")
            Text("span", said, "c-hint")
        return made

    def _choose(self, engine: str) -> None:
        self._engine = "" if self._engine == engine else engine
        self._mark()
        if self._entries:
            self._show()

    def _mark(self) -> None:
        for engine, made in self._cards.items():
            made.props["aria-pressed"] = "true" if engine == self._engine else "false"
            made.update()
        self._repository.visible = self._engine == "vllm"

    def _make_repository(self) -> None:
        heading("From Hugging Face", 2)
        hint("The engine loads it when it starts first, so the host needs the way there; a gated one needs a token.")
        with box("c-line"):
            self._repo = ui.input(placeholder="Qwen/Qwen3-8B").props("outlined dense")
            labelled(self._repo.classes("c-search"), "Hugging Face repository")
            self._repo.on("keydown.enter", self._use_repository)
            button("Use it", self._use_repository)

    def _use_repository(self) -> None:
        repo = (self._repo.value or "").strip()
        if not repo:
            self._repo.error = "A repository is wanted, like Qwen/Qwen3-8B."
            return
        ui.navigate.to(f"/models/new?{urlencode({'repo': repo})}")

    def _show(self) -> None:
        wanted = self._search.value or ""
        mine = [one for one in self._entries if not self._engine or not one.usable or one.engine == self._engine]
        found = ordered(one for one in mine if one.matches(wanted))
        usable, rest = [one for one in found if one.usable], [one for one in found if not one.usable]
        self._count.text = f"{len(usable)} of {sum(one.usable for one in self._entries)} usable"
        self._list.clear()
        with self._list:
            if not self._entries:
                self._show_empty()
                return
            if usable:
                with box("c-card mf-library"):
                    for one in usable[:_MOST_SHOWN]:
                        self._entry(one)
            else:
                empty_state("o_search_off", "Nothing to use here", "Choose the other engine, or search otherwise.")
            if len(usable) > _MOST_SHOWN or not self._complete:
                hint("There is more: search for it.")
            if rest:
                self._show_rest(rest)

    def _show_rest(self, rest: Sequence[LibraryEntry]) -> None:
        with ui.expansion(f"{len(rest)} cannot be used by {'itself' if len(rest) == 1 else 'themselves'}").classes(
            "mf-group"
        ):
            for one in rest[:_MOST_SHOWN]:
                self._entry(one)

    def _show_empty(self) -> None:
        where = self._folder or "the models folder (CORTEX_MODELS_DIR)"
        empty_state(
            "o_folder_open",
            "The models folder is empty",
            f"Put a GGUF file, or a folder of safetensors, into {where} and look again.",
            lambda: button("Look again", self._look_again, icon="o_refresh", kind="primary"),
        )

    def _entry(self, one: LibraryEntry) -> None:
        address = f"/models/new?{urlencode({'path': one.path})}"
        with box("mf-entry"):
            with box("mf-entry-text"):
                with box("c-line"):
                    name = one.name or one.path.rpartition("/")[2]
                    Text("span", name, "mf-entry-title")
                    if one.engine:
                        engine_badge(one.engine)
                    if one.recommended:
                        badge("recommended", Tone.GOOD)
                    word, tone = one.status
                    if word != "ready":
                        badge(word, tone)
                    for capability in one.capabilities:
                        if capability != "system":
                            tag(capability)
                Text("span", one.path, "c-hint c-mono")
                Text("span", one.facts, "c-hint")
                said = [one.quality and f"{one.quantization}: {one.quality}", one.recommendation, one.why, *one.hints]
                Text("span", ". ".join(part[:1].upper() + part[1:] for part in said if part), "c-hint")
            off = self._off.get(one.engine or "")
            if one.usable:
                with box("mf-entry-acts"):
                    self._acts(one, name, address, off)

    def _acts(self, one: LibraryEntry, name: str, address: str, off: str | None) -> None:
        async def start() -> None:
            await self._create_and_start(one, address)

        labelled(link_button("Set up", address, icon="o_tune"), f"Set up {name}")
        made = button("Create and start", start, icon="o_play_arrow", kind="primary", why_not=off)
        labelled(made, f"Create and start {name}")

    async def _create_and_start(self, one: LibraryEntry, address: str) -> None:
        """With what the form would begin with. What cannot start is shown in the form instead."""
        (entry, names), told = await asyncio.gather(self._api.opening(one.path), self._api.advised(one.path))
        entry = entry or one
        given = {"engine_type": entry.engine, **beginning(entry, advice(told.get("settings")), names)}
        outlook = await self._api.dry_run_new(given)
        if outlook.fits is False or not outlook.argv:
            notify.tell(f"It cannot start as it is: {outlook.placement or outlook.command_reason}")
            ui.navigate.to(address)
            return
        made = await self._api.create(given, start=True)
        notify.done(f"{text(made.get('name'))} is starting.")
        ui.navigate.to(f"/models/{text(made.get('id'))}")
