"""Resource calculator: what a model takes of which hardware, before it is made."""

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from nicegui import events, ui

from cortex_console.adapters.model_form_api import ModelFormApi
from cortex_console.components import notify
from cortex_console.components.badge import badge
from cortex_console.components.buttons import button
from cortex_console.components.dialogs import Question, confirm
from cortex_console.components.empty import empty_state
from cortex_console.components.forms import Field, ask_form
from cortex_console.components.header import page_header
from cortex_console.components.memory_bars import memory_bars
from cortex_console.components.page import Page, PageContext
from cortex_console.components.text import Text, box, card, facts, heading, hint, labelled
from cortex_console.domain.form import calculator
from cortex_console.domain.form.calculator import Hardware
from cortex_console.domain.form.draft import Draft, change_of
from cortex_console.domain.form.fields import FormField
from cortex_console.domain.form.latest import Latest
from cortex_console.domain.form.library import LibraryEntry, ordered
from cortex_console.domain.form.memory import Estimate, Proposal, proposals_of, settled, useful
from cortex_console.domain.form.refusals import of_error
from cortex_console.domain.shapes import Row, text, whole
from cortex_console.errors import ConsoleError
from cortex_console.pages.model_edit.inputs import FieldInput
from cortex_console.pages.model_edit.outlook import largest_button
from cortex_console.ports import Batch
from cortex_contracts.rights import Right

_OTHER = "other"


class Calculator:
    """The calculator of one browser."""

    def __init__(self, context: PageContext) -> None:
        self._context = context
        self._api = ModelFormApi(context.api)
        self._inputs: dict[str, FieldInput] = {}
        self._advice: tuple[Proposal, ...] = ()
        self._refresh = Latest(self._ask)

    async def build(self) -> None:
        """Draw it."""
        self._header = page_header("Calculator", "What a model takes, before it is made.")
        self._place = box("c-stack")
        await self._draw()
        self._context.on_events(self._on_events)

    async def _draw(self, *, refresh: bool = False) -> None:
        (entries, _), self._all_fields, nodes = await asyncio.gather(
            self._api.library(refresh=refresh), self._api.fields(), self._api.hardware()
        )
        self._hosts = [Hardware.of(node) for node in nodes]
        self._entries = {one.path: one for one in ordered(entries) if one.usable}
        model = await self._api.model(self._context.query["model"]) if "model" in self._context.query else None
        self._place.clear()
        with self._place:
            if not self._entries:
                self._nothing()
                return
            path = text((model or {}).get("local_path")) or self._context.query.get("path", "")
            first = path if path in self._entries else next(iter(self._entries))
            with box("calc-layout"):
                with box("c-stack"):
                    self._make_choice(first)
                    self._make_hardware()
                    self._settings = card("Settings")
                self._result = box("calc-result").props('aria-live="polite"')
        with self._header:
            self._acts()
        self._choose(first, model)
        await self._refresh()

    async def _on_events(self, batch: Batch) -> None:
        if not self._entries and batch.has("gguf."):
            await self._draw()

    async def _look_again(self) -> None:
        await self._draw(refresh=True)

    def _nothing(self) -> None:
        said = "Put a GGUF file or a folder of safetensors into the models folder; then this tells what it takes."
        again = partial(button, "Look again", self._look_again, icon="o_refresh")
        empty_state("o_calculate", "There is nothing to calculate yet", said, again)

    def _make_choice(self, first: str) -> None:
        with card("Model"):
            options = {path: f"{one.name or path} · {one.quantization}" for path, one in self._entries.items()}
            made = ui.select(options, value=first, with_input=True).props("outlined dense options-dense")
            labelled(made.classes("c-field"), "Model")
            self._about = hint("")
            made.on_value_change(self._chosen)

    def _make_hardware(self) -> None:
        with card("Hardware"):
            options = {str(index): host.name for index, host in enumerate(self._hosts)} | {_OTHER: "Other hardware"}
            first = "0" if self._hosts else _OTHER
            self._host = ui.select(options, value=first).props("outlined dense options-dense")
            labelled(self._host.classes("c-field"), "Hardware")
            self._free = hint("")
            self._thought = box("mf-fields")
            with self._thought:
                self._numbers = {
                    name: _number(label, value)
                    for name, label, value in (
                        ("gpus", "GPUs", 1),
                        ("each", "GiB of each GPU", 24),
                        ("ram", "GiB of RAM", 64),
                        ("cores", "CPU cores", 16),
                    )
                }
            for one in (self._host, *self._numbers.values()):
                one.on_value_change(self._hardware_changed)
            self._show_hardware()

    def _show_hardware(self) -> None:
        self._thought.visible = self._host.value == _OTHER
        self._free.text = self._hardware().summary

    async def _hardware_changed(self) -> None:
        self._advice = ()
        self._show_hardware()
        await self._refresh()

    def _hardware(self) -> Hardware:
        if self._host.value != _OTHER:
            return self._hosts[int(self._host.value)]
        given = {name: float(one.value or 0) for name, one in self._numbers.items()}
        return Hardware.thought(int(given["gpus"]), given["each"], given["ram"], int(given["cores"]))

    async def _chosen(self, event: events.ValueChangeEventArguments[Any]) -> None:
        if event.value in self._entries:
            self._choose(event.value, None)
            await self._refresh()

    def _choose(self, path: str, model: Row | None) -> None:
        entry = self._entries[path]
        engine = entry.engine or "llamacpp"
        fields = calculator.settings_of(engine, self._all_fields.get(engine, ()))
        self._entry: LibraryEntry = entry
        self._advice = ()
        given = {field.name: model[field.name] for field in fields if model is not None and field.name in model}
        self._draft = Draft(
            engine, {one.name: one for one in fields}, {one.name: one.default for one in fields} | given
        )
        self._about.text = f"{entry.facts}. {entry.why[:1].upper()}{entry.why[1:]}".removesuffix(".") + "."
        self._settings.clear()
        self._inputs.clear()
        with self._settings:
            heading("Settings", 2)
            with box("mf-fields"):
                for field in fields:
                    self._inputs[field.name] = FieldInput(field, self._draft.value(field.name), self._typed)

    async def _typed(self, name: str, what: Any) -> None:
        self._draft = self._draft.typed(name, what)
        self._inputs[name].mark(self._draft.value(name))
        await self._refresh()

    async def _ask(self) -> None:
        request = calculator.estimate_request(self._entry.path, self._draft, self._hardware())
        wrong: Mapping[str, str] = self._draft.wrong
        try:
            estimate = await self._api.estimate(request)
        except ConsoleError as error:
            if error.status != 422:
                raise
            told = {field.removeprefix(f"{self._draft.engine}."): said for field, said in of_error(error).items()}
            self._complain(told | dict(wrong))
            return
        self._complain(wrong)
        self._show(estimate)

    def _complain(self, wrong: Mapping[str, str]) -> None:
        for name, one in self._inputs.items():
            one.complain(wrong.get(name))
        rest = [said for field, said in wrong.items() if field not in self._inputs]
        if rest:
            self._result.clear()
            with self._result:
                Text("p", " ".join(rest), "mf-notice c-bad").props('role="alert"')

    def _show(self, estimate: Estimate) -> None:
        self._result.clear()
        with self._result:
            with card():
                with box("c-line"):
                    heading(self._hardware().name, 2)
                    box("c-spring")
                    badge(*estimate.verdict)
                if not estimate.known:
                    Text("p", f"At least this: {estimate.reason}", "mf-notice c-warn")
                memory_bars(estimate)
                facts(estimate.facts())
                largest_button(estimate, self._draft.engine, self._apply)
                for said in estimate.warnings:
                    Text("p", said, "mf-notice c-warn")
            self._show_proposals(estimate)

    def _show_proposals(self, estimate: Estimate) -> None:
        named = {one.setting for one in estimate.proposals}
        every = [*estimate.proposals, *(one for one in self._advice if one.setting not in named)]
        found = useful(every, self._draft.fields, self._draft.values)
        with card():
            with box("c-line"):
                heading("Suggestions", 2)
                box("c-spring")
                if self._draft.engine == "llamacpp":
                    button("Recommend", self._recommend, icon="o_lightbulb", kind="quiet").classes("mf-small")
                if len(found) > 1:
                    button("Apply all", lambda: self._apply(found), kind="quiet").classes("mf-small")
            if not found:
                said = "Nothing better was found." if self._advice else "Ask for settings made for this hardware."
                hint(said if self._draft.engine == "llamacpp" else "Nothing better was found.")
            for one in found:
                self._proposal(one)

    def _proposal(self, one: Proposal) -> None:
        with box("mf-tip"):
            with box("mf-tip-text"):
                Text("div", one.label, "c-strong")
                Text("div", one.reason, "c-hint")
            made = button("Apply", lambda: self._apply([one])).classes("mf-small")
            labelled(made, f"Apply {one.label}")

    async def _apply(self, proposals: Sequence[Proposal]) -> None:
        for one in proposals:
            field: FormField = self._draft.fields[one.setting]
            self._draft = self._draft.having(one.setting, settled(one, field))
            self._inputs[one.setting].show(self._draft.value(one.setting))
        await self._refresh()

    async def _recommend(self) -> None:
        more = self._hardware().request() | {"parallel_slots": self._draft.value("parallel_slots") or 1}
        told = await self._api.recommend(self._entry.path, more)
        self._advice = proposals_of(told.get("settings"))
        await self._refresh()

    def _acts(self) -> None:
        reason = self._context.why_not(Right.MODELS_WRITE)
        button("Apply to a model", self._apply_to_model, icon="o_tune", why_not=reason)
        if reason is None:
            button("Make a model of it", self._make_model, icon="o_add", kind="primary")

    def _make_model(self) -> None:
        ui.navigate.to(calculator.address_of_new(self._entry.path, self._draft))

    async def _apply_to_model(self) -> None:
        answer = await self._context.api.get("/models")
        found = calculator.candidates(answer.get("items") or [], self._draft.engine, self._entry.path)
        if not found:
            notify.tell("There is no model of this engine yet.")
            return
        by_id = {text(one.get("id")): one for one in found}
        options = {one: text(row.get("name")) for one, row in by_id.items()}
        chosen: list[Row] = []

        async def submit(values: dict[str, Any]) -> None:
            chosen.append(by_id[values["model"]])

        asked = Field("model", "Model", kind="choice", value=next(iter(options)), options=options, required=True)
        if await ask_form("Apply to a model", [asked], "Look at the changes", submit):
            await self._change(chosen[0])

    async def _change(self, model: Row) -> None:
        patch = calculator.patch_for(model, self._draft)
        if not patch:
            notify.tell(f"{text(model.get('name'))} has these settings already.")
            return
        shown = [change_of(self._draft.fields[name], name, model[name], self._draft.value(name)) for name in patch]
        said = [f"{one.label}: {one.before} → {one.after}" for one in shown]
        if model.get("desired_state") == "running":
            said.append("Its replicas are replaced, one after the other.")
        name = text(model.get("name"))
        if await confirm(Question(f"Change {name}?", said, "Change")):
            await self._api.change(text(model.get("id")), patch, whole(model.get("version")))
            notify.done(f"{name} is changed.")


def _number(label: str, value: float) -> ui.number:
    with box("mf-field"):
        Text("div", label, "mf-label")
        made = ui.number(value=value, min=0).props('outlined dense debounce="300"')
        labelled(made.classes("c-field"), label)
    return made


async def build(context: PageContext) -> None:
    """Draw the page."""
    await Calculator(context).build()


CALCULATOR = Page("/calculator", "Calculator", build, Right.MODELS_READ, icon="o_calculate", group="Serve")
