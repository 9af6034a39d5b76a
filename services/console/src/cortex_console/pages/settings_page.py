"""Settings: the addresses, the models folder, and what is set by the environment."""

import asyncio

from cortex_console.components.badge import badge
from cortex_console.components.buttons import link_button
from cortex_console.components.page import Page, PageContext
from cortex_console.components.secret import copy_button
from cortex_console.components.text import Text, box, card, code, facts, hint, paragraph
from cortex_console.domain.formatting import NOTHING
from cortex_console.domain.shapes import Row, row, rows, text, whole
from cortex_console.domain.states import Tone, engine_name
from cortex_console.pages.settings_sections import SETTINGS_PATH, settings_header
from cortex_contracts.rights import Right

_PARTS = {
    "postgres": "Database",
    "nats": "Message bus",
    "provisioning": "Streams and buckets",
    "replicas": "Engines as the orchestrator sees them",
    "verdicts": "Health verdicts",
}
_SHOWN = 12


async def build(context: PageContext) -> None:
    """Draw the page."""
    settings_header(context, "Settings", "What this installation is and where it looks for models.")
    api = context.api
    capabilities, status = await asyncio.gather(api.get("/capabilities"), api.get("/status"))
    base, folders = await asyncio.gather(api.get("/models/base-dir"), api.get("/models/local-folders"))
    with box("c-columns"):
        _addresses(context)
        _models_folder(context, base, folders)
        _installation(capabilities, status)
        _elsewhere()


def _addresses(context: PageContext) -> None:
    address = f"{context.installation.gateway_url}/v1"
    with card("Address for programs"):
        paragraph("Every OpenAI client works with this base URL and an API key.")
        with box("c-line"):
            code(address)
            copy_button(address)
        hint("CORTEX_CONSOLE_PUBLIC_GATEWAY_URL says what is shown here.")


def _models_folder(context: PageContext, base: Row, folders: Row) -> None:
    path, found = text(base.get("base_dir")), [str(one) for one in folders.get("items") or ()]
    with card("Models folder"):
        if not path:
            badge("not set", Tone.WARN)
            paragraph(
                f"Set {text(base.get('setting'))} for the registry, the orchestrator and the inspector, and restart them."
            )
            return
        with box("c-line"):
            code(path)
            copy_button(path)
            readable = bool(base.get("readable"))
            badge("readable" if readable else "not readable", Tone.GOOD if readable else Tone.BAD)
        paragraph("Put GGUF files, or folders with safetensors, below it. Engines see it read-only.")
        if found:
            with box("c-list"):
                for name in found[:_SHOWN]:
                    with box("c-list-row"):
                        Text("span", name, "c-mono c-clip")
            if len(found) > _SHOWN:
                hint(f"and {len(found) - _SHOWN} more folders")
        hint(
            f"It is a setting of every service ({text(base.get('setting'))}): engines mount it, so it is not changed here."
        )
        if context.may(Right.MODELS_WRITE):
            with box("c-line"):
                link_button("New model", "/models/new", icon="o_add")


def _installation(capabilities: Row, status: Row) -> None:
    counts = row(status.get("counts"))
    engines = [
        f"{engine_name(text(one.get('engine_type')))}{'' if one.get('enabled') else ' (off)'}"
        for one in rows(capabilities.get("engines"))
    ]
    with card("Installation"):
        facts(
            {
                "Cortex": text(capabilities.get("version"), NOTHING),
                "Engines": ", ".join(engines),
                "Hosts": str(whole(counts.get("nodes"))),
                "Models": str(whole(counts.get("models"))),
                "API keys": str(whole(counts.get("keys"))),
            }
        )
        with box("c-list"):
            for name, label in _PARTS.items():
                part = row(row(status.get("components")).get(name))
                if part:
                    _part(label, part)
        with box("c-line"):
            link_button("System", "/system", icon="o_dns")
            link_button("Guide", "/guide", icon="o_menu_book")


def _part(label: str, part: Row) -> None:
    ready = bool(part.get("ready"))
    with box("c-list-row"):
        Text("span", label, "c-grow c-clip")
        if not ready:
            Text("span", text(part.get("reason")), "c-hint c-clip")
        badge("ready" if ready else "not ready", Tone.GOOD if ready else Tone.BAD)


def _elsewhere() -> None:
    with card("Set by the environment"):
        paragraph(
            "Everything else is a variable of the services, so that an installation can be made again from its files."
        )
        facts(
            {
                "Compose": ".env and services.env beside docker-compose.yaml",
                "cortex up": "variables of the shell, and secrets.json in its home folder",
                "All of them": "Settings in the README of each service",
            }
        )
        hint("CORTEX_SECRET_KEY seals every secret: keep it apart from backups.")


SETTINGS = Page(SETTINGS_PATH, "Settings", build, Right.SELF, icon="o_settings", group="More")
