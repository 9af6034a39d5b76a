"""Backups: making them, what lies there, and putting one back."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from nicegui import ui

from cortex_console.adapters.settings_api import BackupsApi
from cortex_console.components import notify, table
from cortex_console.components.badge import stat
from cortex_console.components.buttons import button
from cortex_console.components.dialogs import dialog
from cortex_console.components.empty import empty_state
from cortex_console.components.forms import Field, Values, ask_form
from cortex_console.components.page import Page, PageContext
from cortex_console.components.text import Text, box, card, facts, heading, labelled
from cortex_console.domain.backups import (
    KINDS,
    PARTS,
    backup_facts,
    backup_row,
    estimate_text,
    export_body,
    job_row,
    progress,
)
from cortex_console.domain.formatting import ago_text, bytes_text
from cortex_console.domain.shapes import Row, number, row, rows, text, whole
from cortex_console.pages.settings_sections import SETTINGS_PATH, settings_header
from cortex_contracts.rights import Right

WORKING_EVERY_S = 1.5
RESTING_EVERY_S = 15.0
_BACKUPS = (
    table.Column("folder", "Backup", table.NAMED, wide=True),
    table.Column("made", "Made", table.TIME, sort_by="made_sort"),
    table.Column("by", "By"),
    table.Column("size", "Size", align="right", sort_by="size_sort"),
    table.Column("restorable", "Can be restored", table.BADGE_NOTE, wide=True),
)
_JOBS = (
    table.Column("job", "Job", wide=True),
    table.Column("status", "Outcome", table.BADGE_NOTE, wide=True),
    table.Column("asked", "Asked for", table.TIME, sort_by="asked_sort"),
    table.Column("by", "By"),
    table.Column("took", "Took", align="right", sort_by="-"),
)
_RESTORE = (
    "Everything is replaced by the backup in one transaction: models, keys, users, settings, usage. Whatever was changed since is gone. "
    "Everybody signs in again, and models are stopped. Requests to the admin API wait meanwhile; the gateway serves on."
)
_FINISHED = ("failed", "cancelled", "succeeded")


class BackupsPage:
    """The page of one browser."""

    def __init__(self, context: PageContext) -> None:
        self._context = context
        self._api = BackupsApi(context.api)
        self._known: dict[str, Row] = {}
        self._options: Row = {}
        self._working = False

    async def build(self) -> None:
        """Draw it."""
        self._options = await self._api.options()
        problem = text(self._options.get("problem")) or None
        lead = "A backup is a folder with everything that Cortex has to know. Nothing has to be stopped to make one."
        with settings_header(self._context, "Backups", lead):
            why_not = self._context.why_not(Right.BACKUPS_WRITE) or problem
            button("Make a backup", self._make, icon="o_backup", kind="primary", why_not=why_not)
        self._stats = box("c-stats")
        self._active = box("")
        self._empty = box("")
        self._backups = table.Table("Backups", _BACKUPS, on_act=self._act)
        self._jobs_card = box("c-stack")
        with self._jobs_card:
            heading("Lately")
            self._jobs = table.Table("Jobs", _JOBS)
        await self._read()
        # Jobs are no events: they are looked at, often while one runs.
        ui.timer(WORKING_EVERY_S, self._read_working, immediate=False)
        ui.timer(RESTING_EVERY_S, self._read, immediate=False)

    async def _read_working(self) -> None:
        if self._working:
            await self._read()

    async def _read(self) -> None:
        status, backups, jobs = await asyncio.gather(self._api.status(), self._api.backups(), self._api.jobs())
        now = datetime.now(UTC)
        self._working = bool(status.get("active"))
        self._known = {text(one.get("folder")): one for one in backups}
        self._show_stats(status, now)
        self._show_active(rows(status.get("active")))
        self._backups.show([backup_row(one, now) | {"actions": self._acts(one)} for one in backups])
        self._backups.element.visible = bool(backups)
        finished = [job for job in jobs if job.get("status") in _FINISHED]
        self._jobs.show([job_row(job, now) for job in finished])
        self._jobs_card.visible = bool(finished)
        self._empty.clear()
        if not backups and not self._working:
            with self._empty:
                self._show_empty()

    def _show_empty(self) -> None:
        problem = text(self._options.get("problem"))
        if problem:
            setting = text(self._options.get("setting"))
            empty_state(
                "o_backup", "Backups are not set up", f"{problem} Set {setting} for the registry and restart it."
            )
            return
        told = "Make one now, before the first upgrade. docs/backup.md shows how to have one every night."
        empty_state("o_backup", "No backups yet", told)

    def _show_stats(self, status: Row, now: datetime) -> None:
        last = row(status.get("last_export"))
        self._stats.clear()
        with self._stats:
            stat("Last backup", ago_text(last.get("finished_at"), now) if last else "none", text(last.get("folder")))
            stat("Backups", str(whole(status.get("backups"))), text(status.get("export_dir"), "no folder is set"))
            stat("Free room", bytes_text(number(status.get("free_bytes"))), "where backups lie")

    def _show_active(self, jobs: Sequence[Row]) -> None:
        self._active.clear()
        if not jobs:
            return
        with self._active, card("Under way"):
            for job in jobs:
                self._show_job(job)

    def _show_job(self, job: Row) -> None:
        share, words = progress(job)
        with box("c-job-line"):
            Text("span", f"{KINDS.get(text(job.get('kind')), '')} {text(job.get('folder'))}", "c-strong")
            Text("span", words, "c-hint").props('role="status"')
            why_not = self._context.why_not(Right.BACKUPS_WRITE)
            button("Cancel", lambda: self._cancel(text(job.get("id"))), kind="plain", why_not=why_not)
        bar = labelled(box(f"c-progress{'' if share is not None else ' c-progress-unknown'}"), "Progress")
        bar.props('role="progressbar" aria-valuemin=0 aria-valuemax=100')
        if share is not None:
            bar.props(f"aria-valuenow={share * 100:.0f}")
        with bar:
            box("").style(f"width:{share * 100:.1f}%" if share is not None else "")

    def _acts(self, backup: Row) -> list[dict[str, object]]:
        why_not = self._context.why_not(Right.BACKUPS_WRITE)
        problems = " ".join(
            f"{text(one.get('message'))} {text(one.get('fix'))}" for one in rows(backup.get("problems"))
        )
        other_key = _other_key_only(backup)
        blocked = None if backup.get("restorable") or other_key else problems or "It holds no database."
        return [
            table.Act("show", "Details", "o_list", first=True).cell(),
            table.Act("restore", "Restore", "o_settings_backup_restore", why_not or blocked, danger=True).cell(),
        ]

    async def _act(self, key: str, act: str) -> None:
        backup = self._known.get(key)
        if backup is None:
            return
        await (self._restore(backup) if act == "restore" else _show(backup))

    async def _cancel(self, job_id: str) -> None:
        await self._api.cancel(job_id)
        notify.tell("It ends in a moment and leaves nothing.")
        await self._read()

    async def _make(self) -> None:
        body = export_body({part: part != "model_files" for part in PARTS} | {"usage": True})
        estimate = await self._api.estimate(body)

        async def submit(values: Values) -> None:
            await self._api.export(export_body(values))
            notify.done("The backup is being made.")

        available = {text(one.get("part")): one for one in rows(self._options.get("parts"))}
        fields = [Field("folder", "Name", hint="Empty: the time is its name")]
        for part, label in PARTS.items():
            told = available.get(part, {})
            if told.get("available"):
                fields.append(Field(part, label, "switch", bool(told.get("default"))))
        fields.insert(
            2, Field("usage", "With usage records", "switch", True, "By far the largest part of the database")
        )
        text_ = f"{estimate_text(estimate)} Model files are not counted in it."
        if await ask_form("Make a backup", fields, "Make it", submit, text=text_):
            self._working = True
            await self._read()

    async def _restore(self, backup: Row) -> None:
        folder = text(backup.get("folder"))

        async def submit(values: Values) -> None:
            body: dict[str, Any] = {"folder": folder, "start": values["start"], "backup_first": values["backup_first"]}
            other = {"other_secret_key": True} if values.get("other_secret_key") else {}
            await self._api.restore(body | other | {"confirm": values["confirm"]})
            notify.tell("The restore has begun. You will have to sign in again.")

        fields = [
            Field("confirm", f"Type {folder} to confirm", required=True),
            Field("backup_first", "Back the present up first", "switch", True),
            Field("start", "Run the models that ran then", "switch", False),
        ]
        if _other_key_only(backup):
            told = "Its secrets are sealed with a key that is not known here: they have to be set anew."
            fields.append(Field("other_secret_key", "Go on without its secrets", "switch", False, told))
        if await ask_form(f"Restore {folder}", fields, "Replace everything", submit, text=_RESTORE):
            self._working = True
            await self._read()


def _other_key_only(backup: Row) -> bool:
    codes = {text(one.get("code")) for one in rows(backup.get("problems"))}
    return codes == {"other_secret_key"}


async def _show(backup: Row) -> None:
    title = text(backup.get("folder"))
    with dialog(title, wide=True) as made:
        heading(title, 2)
        facts(backup_facts(backup))
        for problem in rows(backup.get("problems")):
            with box("c-stack"):
                Text("p", text(problem.get("message")), "c-strong")
                Text("p", text(problem.get("fix")), "c-hint")
        missing = [str(name) for name in backup.get("missing_files") or ()]
        if missing:
            Text("p", "These model files were not there:", "c-hint")
            Text("pre", "\n".join(missing), "c-pre")
        with box("c-dialog-foot"):
            button("Close", made.close, kind="primary")
    await made
    made.delete()


async def build(context: PageContext) -> None:
    """Draw the page."""
    await BackupsPage(context).build()


BACKUPS = Page(f"{SETTINGS_PATH}/backups", "Backups", build, Right.BACKUPS_READ, belongs_to=SETTINGS_PATH)
