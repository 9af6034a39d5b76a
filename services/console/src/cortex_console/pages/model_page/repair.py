"""What went wrong, and the button that mends it."""

from nicegui import ui

from cortex_console.adapters.models_api import ModelsApi
from cortex_console.components import notify
from cortex_console.components.buttons import button, link_button
from cortex_console.components.dialogs import Question, confirm
from cortex_console.components.moments import ago
from cortex_console.components.text import Text, box
from cortex_console.domain.fixes import Fix, find_fix
from cortex_console.domain.model_acts import ModelAct
from cortex_console.domain.model_detail import Diagnosis, Replica
from cortex_console.pages.model_page.shared import ModelView
from cortex_contracts.rights import Right


def show_repair(view: ModelView, replica: Replica) -> None:
    """Draw the diagnosis of a replica with its fix."""
    diagnosis = replica.diagnosis
    if diagnosis is None:
        return
    fix = find_fix(diagnosis, view.detail.answer)
    with box("c-card c-repair").props('role="alert"'):
        with box("c-repair-head"):
            ui.icon("o_error_outline").classes("c-bad-text c-repair-icon").props('aria-hidden="true"')
            with box("c-stack c-repair-text"):
                Text("h2", diagnosis.message, "c-h2")
                if diagnosis.fix:
                    Text("p", diagnosis.fix, "c-p")
                _small_print(diagnosis, replica)
        with box("c-line"):
            _buttons(view, fix)


def _small_print(diagnosis: Diagnosis, replica: Replica) -> None:
    with box("c-line c-hint"):
        Text("code", diagnosis.code, "c-code")
        Text("span", f"Replica {replica.ordinal} on {replica.node}")
        if replica.exit_code is not None:
            Text("span", f"exit code {replica.exit_code}")
        if replica.restarts:
            Text("span", f"{replica.restarts} restarts")
        if replica.next_attempt_at:
            Text("span", f"tried again at {replica.next_attempt_at[11:19]} UTC")
        ago(replica.since)


def _buttons(view: ModelView, fix: Fix) -> None:
    context, model = view.context, view.detail.summary
    if not context.may(Right.MODELS_OPERATE):
        return
    right = Right.MODELS_WRITE if fix.patch else Right.MODELS_OPERATE

    async def apply() -> None:
        question = Question(f"{fix.label}?", fix.consequences, fix.label if fix.patch else "Try again")
        if not await confirm(question):
            return
        if fix.patch:
            await view.api.change_model(model.id, fix.patch, model.version)
        await ModelsApi(context.api).act(model.id, ModelAct.START.value)
        view.trouble = None
        notify.done(f"{model.name} is starting.")
        await view.read()

    button(
        fix.label, apply, icon="o_build" if fix.patch else "o_replay", kind="primary", why_not=context.why_not(right)
    )
    if context.may(Right.MODELS_WRITE):
        link_button("Edit the model", f"/models/{model.id}/edit", icon="o_edit")
    if context.may(Right.LOGS_READ):
        link_button("Read its log", f"/models/{model.id}?tab=logs", icon="o_article")
