"""Chat with one model, or with two beside each other."""

import asyncio
from collections.abc import Callable, Sequence
from uuid import uuid4

from nicegui import ui

from cortex_console.adapters.chats_api import ChatsApi, Kept
from cortex_console.components import notify
from cortex_console.components.buttons import button
from cortex_console.components.dialogs import Question, confirm
from cortex_console.components.text import Text, box, labelled
from cortex_console.components.unfinished import Unfinished
from cortex_console.domain.answering import Answering
from cortex_console.domain.chat import ChatSummary, Conversation, Turn, chat_body, title_of, without_last_answer
from cortex_console.domain.play_models import context_of
from cortex_console.domain.snippets import curl, python_chat
from cortex_console.errors import ConsoleError
from cortex_console.pages.playground.composer import Composer
from cortex_console.pages.playground.gateway import Playground
from cortex_console.pages.playground.history import History, HistoryActs
from cortex_console.pages.playground.options import OptionsPanel
from cortex_console.pages.playground.snippets import show_snippets
from cortex_console.pages.playground.transcript import Transcript

TASK = "generate"
WATCH_S = 0.25
_APART = {
    Kept.BRANCH: "This conversation went on in another tab. What is said here is kept as one of its own.",
    Kept.ANEW: "This conversation was deleted in another tab. It is kept as a new one.",
}


class ChatPanel:
    """One conversation, and the list of the others."""

    def __init__(self, playground: Playground) -> None:
        self._playground = playground
        self._api = ChatsApi(playground.context.api)
        self._user = playground.context.me.user_id or playground.context.me.username
        self._chats: list[ChatSummary] = []
        self._conversation = Conversation(str(uuid4()))
        self._answering: Answering | None = None
        self._unkept = False

    async def build(self) -> None:
        """Draw it, with the conversation that the address names."""
        with box("pg-chat"):
            acts = HistoryActs(self._new, self._open, self._delete, self._delete_all)
            self._history = History(acts)
            with box("pg-main"):
                with box("pg-toolbar"):
                    self._make_toolbar()
                self._options = OptionsPanel(self._options_changed)
                self._transcript = Transcript()
                self._none = box("")
                self._composer = Composer(
                    self._ask, self._stop, self._again, Unfinished(self._playground.context, "question")
                )
        ui.context.client.on_delete(self._leave)
        query = self._playground.context.query
        found, self._chats = await asyncio.gather(self._wanted(query.get("chat", "")), self._api.list_all())
        if found is not None:
            self._conversation = found
        elif query.get("model"):
            self._conversation.models = [query["model"]]
        self._show()
        self._watch()

    def show_models(self) -> None:
        """After models came or went."""
        chosen = self._chosen()
        for select, name in zip(self._selects, [*chosen, ""][:2], strict=False):
            select.set_options(self._playground.choices(TASK, name), value=name or None)
        if not self._selects[0].value:
            self._choose_first()
        self._show_nothing()

    def _make_toolbar(self) -> None:
        button("History", self._toggle_history, icon="o_history", kind="quiet").classes("pg-narrow")
        self._selects = [self._select("Model"), self._select("Second model")]
        self._second = box("c-line")
        self._selects[1].move(self._second)
        self._compare = button("Compare", self._toggle_second, icon="o_compare")
        box("c-spring")
        button("Settings", lambda: self._options.toggle(), icon="o_tune")
        button("Copy as code", self._show_code, icon="o_code")

    def _select(self, label: str) -> ui.select:
        made = ui.select({}, on_change=self._model_changed)
        labelled(made.props("outlined dense options-dense"), label).classes("pg-model")
        return made

    async def _wanted(self, chat_id: str) -> Conversation | None:
        return await self._api.get(chat_id) if chat_id else None

    def _chosen(self) -> list[str]:
        return [str(select.value) for select in self._selects if select.value]

    def _choose_first(self) -> None:
        offered = list(self._playground.choices(TASK))
        if offered:
            self._selects[0].value = offered[0]

    def _show(self) -> None:
        conversation = self._conversation
        self._options.show(conversation)
        names = [*conversation.models, "", ""][:2]
        for select, name in zip(self._selects, names, strict=True):
            select.set_options(self._playground.choices(TASK, name), value=name or None)
        if not names[0]:
            self._choose_first()
        self._show_second(bool(names[1]))
        self._show_turns()
        self._history.show(self._chats, conversation.id)

    def _show_turns(self) -> None:
        contexts = {name: self._context(name) for name in {turn.model for turn in self._conversation.turns}}
        self._transcript.show(self._conversation.turns, contexts)
        self._composer.may_ask_again = any(turn.role == "assistant" for turn in self._conversation.turns)
        self._show_nothing()

    def _show_nothing(self) -> None:
        runs = bool(self._playground.choices(TASK))
        self._none.clear()
        if not runs:
            with self._none:
                self._playground.nothing_runs(TASK)
        elif not self._conversation.turns:
            with self._none, box("pg-begin"):
                Text("p", "Ask something. What you ask counts as your usage.", "c-muted")
        self._composer.element.visible = runs or bool(self._conversation.turns)

    def _context(self, name: str) -> int | None:
        return context_of(self._playground.models, name)

    def _show_second(self, shown: bool) -> None:
        self._second.visible = shown
        self._compare.set_text("One model" if shown else "Compare")

    def _toggle_second(self) -> None:
        shown = not self._second.visible
        others = [name for name in self._playground.choices(TASK) if name != self._selects[0].value]
        first = self._selects[0].value
        self._selects[1].set_options(
            self._playground.choices(TASK), value=(others[0] if others else first) if shown else None
        )
        self._show_second(shown)

    def _toggle_history(self) -> None:
        self._history.toggle()

    def _model_changed(self) -> None:
        self._conversation.models = self._chosen()

    def _options_changed(self) -> None:
        self._options.read_into(self._conversation)

    async def _show_code(self) -> None:
        models = self._chosen() or ["MODEL"]
        self._options.read_into(self._conversation)
        messages = self._conversation.sent(0)
        if not messages or messages[-1]["role"] != "user":
            messages.append({"role": "user", "content": self._composer.text or "Hello"})
        body = chat_body(models[0], messages, self._conversation.parameters)
        url = self._playground.context.installation.gateway_url
        await show_snippets({"curl": curl(url, "/chat/completions", body), "Python": python_chat(url, body)})

    async def _ask(self, question: str) -> None:
        if not question.strip() or not self._chosen() or self._answering is not None:
            return
        conversation = self._conversation
        self._composer.clear(question)
        self._none.clear()
        turn = Turn("user", question.strip())
        conversation.turns.append(turn)
        conversation.title = conversation.title or title_of(turn.text)
        self._transcript.add_question(turn)
        await self._answer(conversation)

    async def _again(self) -> None:
        if self._answering is not None or not self._chosen():
            return
        self._conversation.turns = without_last_answer(self._conversation.turns)
        self._show_turns()
        await self._answer(self._conversation)

    async def _answer(self, conversation: Conversation) -> None:
        """Ask all chosen models at once; keeps the question before and the answers after, whatever becomes of them."""
        self._options.read_into(conversation)
        conversation.models = self._chosen()
        models = [(name, self._context(name)) for name in conversation.models]
        views = self._transcript.add_answers(models)
        sent = [conversation.sent(side) for side in range(len(views))]
        await self._keep(conversation)
        asking: list[asyncio.Task[None]] = []
        answering = Answering(conversation, lambda: [view.turn for view in views], lambda: _cancel(asking))
        end = self._begin(answering)
        try:
            async with asyncio.TaskGroup() as group:
                for view, messages in zip(views, sent, strict=True):
                    receiving = view.receive(self._playground.gateway, messages, conversation.parameters)
                    asking.append(group.create_task(receiving, name="answer"))
        finally:
            conversation.turns += [view.turn for view in views]
            self._settle(answering)
        answering.kept = await self._keep(conversation)
        end()

    def _begin(self, answering: Answering) -> Callable[[], None]:
        self._answering = answering
        self._composer.busy = True
        return self._playground.context.installation.answers.begin(self._user, answering)

    def _settle(self, answering: Answering) -> None:
        if self._answering is answering:
            self._answering = None
            self._composer.busy = False
            self._composer.may_ask_again = True

    def _watch(self) -> None:
        """What is answered to another page of this conversation, as to the one that was loaded again."""
        answering = self._playground.context.installation.answers.find(self._user, self._conversation.id)
        if answering is None:
            return
        answering.watchers += 1
        self._answering, self._conversation = answering, answering.copy()
        self._show()
        self._composer.busy = True
        models = [(turn.model, self._context(turn.model)) for turn in answering.turns()]
        views = self._transcript.add_answers(models)

        def look() -> None:
            if self._answering is not answering:
                timer.cancel()
                return
            if not answering.done:
                for view, turn in zip(views, answering.turns(), strict=True):
                    view.watch(turn)
                return
            timer.cancel()
            self._conversation, self._unkept = answering.copy(), not answering.kept
            self._settle(answering)
            self._show()

        with self._composer.element:  # what was clicked may be drawn anew
            timer = ui.timer(WATCH_S, look)

    def _stop(self) -> None:
        if self._answering is not None:
            self._answering.stop()

    def _leave(self) -> None:
        """The page closes, or shows another conversation."""
        answering, self._answering = self._answering, None
        if answering is not None:
            self._composer.busy = False
            answering.leave()

    async def keep_again(self) -> None:
        """The registry is back: it gets what it could not be given."""
        if self._unkept and self._answering is None:
            await self._keep(self._conversation)

    async def _keep(self, conversation: Conversation) -> bool:
        new = conversation.version is None
        try:
            kept = await self._api.keep(conversation)
            self._chats = await self._api.list_all()
        except ConsoleError as error:
            notify.show_error(error)  # it goes on here, and is kept when the registry is back
            self._unkept = self._unkept or conversation is self._conversation
            return False
        if conversation is self._conversation and not self._history.element.is_deleted:
            self._unkept = False
            if kept in _APART:
                notify.tell(_APART[kept])
            if new or kept in _APART:
                ui.navigate.history.replace(f"/playground?chat={conversation.id}")
            self._history.show(self._chats, conversation.id)
        return True

    async def _new(self) -> None:
        self._leave()
        models = self._chosen()
        self._conversation, self._unkept = Conversation(str(uuid4()), models=models), False
        ui.navigate.history.replace("/playground")
        self._history.fold()
        self._show()
        self._composer.focus()

    async def _open(self, chat_id: str) -> None:
        self._leave()
        found = await self._api.get(chat_id)
        if found is None:
            notify.tell("This conversation was deleted.")
            self._chats = await self._api.list_all()
            self._history.show(self._chats, self._conversation.id)
            return
        self._conversation, self._unkept = found, False
        ui.navigate.history.replace(f"/playground?chat={chat_id}")
        self._history.fold()
        self._show()
        self._watch()

    async def _delete(self, chat: ChatSummary) -> None:
        question = Question(
            f"Delete “{chat.title}”?", ("What was said in it is gone for ever.",), "Delete", danger=True
        )
        if not await confirm(question):
            return
        await self._api.delete(chat.id)
        self._chats = await self._api.list_all()
        if chat.id == self._conversation.id:
            await self._new()
        else:
            self._history.show(self._chats, self._conversation.id)

    async def _delete_all(self) -> None:
        if not self._chats:
            notify.tell("There are no conversations.")
            return
        number = len(self._chats)
        said = f"{number} conversation{'s' * (number != 1)} of yours: what was said in them is gone for ever."
        if await confirm(Question("Delete all conversations?", (said,), "Delete all", danger=True)):
            await self._api.delete_all()
            self._chats = []
            await self._new()


def _cancel(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
