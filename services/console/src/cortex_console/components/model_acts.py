"""Doing something with a model: the question before, the message after."""

from collections.abc import Awaitable, Callable

from nicegui import ui

from cortex_console.adapters.models_api import ModelsApi
from cortex_console.components import notify
from cortex_console.components.buttons import button
from cortex_console.components.dialogs import Question, ask_text, confirm, dialog
from cortex_console.components.text import Text, box, facts, heading
from cortex_console.domain.formatting import duration_text
from cortex_console.domain.model_acts import ModelAct, consequences
from cortex_console.domain.models import ModelSummary
from cortex_console.domain.shapes import Row, number, text

_DONE = {
    ModelAct.START: "{name} is starting.",
    ModelAct.STOP: "{name} is stopping.",
    ModelAct.RESTART: "{name} is being replaced.",
    ModelAct.ARCHIVE: "{name} is archived.",
    ModelAct.UNARCHIVE: "{name} is back, stopped.",
}
_ASK = {
    ModelAct.STOP: ("Stop {name}?", "Stop"),
    ModelAct.RESTART: ("Restart {name}?", "Restart"),
    ModelAct.ARCHIVE: ("Archive {name}?", "Archive"),
    ModelAct.DELETE: ("Delete {name}?", "Delete"),
}


async def perform(act: ModelAct, model: ModelSummary, api: ModelsApi, reload: Callable[[], Awaitable[None]]) -> None:
    """Ask where it has consequences, do it, tell. Raises ConsoleError."""
    if act is ModelAct.EDIT:
        ui.navigate.to(f"/models/{model.id}/edit")
        return
    if act is ModelAct.CLONE:
        await _clone(model, api)
        return
    if act in _ASK and not await _wanted(act, model):
        return
    if act is ModelAct.DELETE:
        await api.delete(model.id)
        notify.done(f"{model.name} is deleted.")
    elif act is ModelAct.TEST:
        notify.tell(f"Asking {model.name}…")
        await _show_test(model, await api.act(model.id, act.value))
    else:
        await api.act(model.id, act.value)
        notify.done(_DONE[act].format(name=model.name))
    await reload()


async def _wanted(act: ModelAct, model: ModelSummary) -> bool:
    title, word = _ASK[act]
    deletes = act is ModelAct.DELETE
    question = Question(
        title.format(name=model.name),
        consequences(act, model),
        word,
        danger=deletes or act is ModelAct.STOP,
        type_to_confirm=model.name if deletes else "",
    )
    return await confirm(question)


async def _clone(model: ModelSummary, api: ModelsApi) -> None:
    name = await ask_text(f"Clone {model.name}", "Name of the new model", "Clone", value=f"{model.name} copy")
    if name is None:
        return
    made = await api.clone(model.id, name)
    notify.done(f"{name} is made, stopped.")
    ui.navigate.to(f"/models/{text(made.get('id'))}/edit")


async def _show_test(model: ModelSummary, result: Row) -> None:
    ok = bool(result.get("ok"))
    title = f"{model.name} {'answers' if ok else 'does not answer'}"
    with dialog(title) as made:
        heading(title, 2)
        duration = number(result.get("duration_ms"))
        values = {
            "Took": duration_text(duration / 1000 if duration is not None else None),
            "Replica": text(result.get("replica_id"), "–"),
            "Tokens": f"{text(result.get('prompt_tokens'), '–')} in, {text(result.get('completion_tokens'), '–')} out",
        }
        facts(values)
        Text("pre", text(result.get("output") if ok else result.get("error"), "(nothing)"), "c-pre")
        with box("c-dialog-foot"):
            button("Close", made.close, kind="primary")
    await made
    made.delete()
