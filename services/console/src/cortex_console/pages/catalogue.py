"""All pages, in the order of the navigation. A path with a parameter comes after those that it would swallow."""

from cortex_console.components.page import Page
from cortex_console.pages import (
    audit,
    calculator,
    events,
    guide,
    health,
    keys,
    model_edit,
    model_page,
    models,
    organisations,
    overview,
    playground,
    recipes,
    settings_page,
    system,
    usage,
    users,
)

PAGES: tuple[Page, ...] = (
    overview.OVERVIEW,
    models.MODELS,
    model_edit.NEW_MODEL,
    model_edit.EDIT_MODEL,
    model_page.MODEL,
    playground.PLAYGROUND,
    calculator.CALCULATOR,
    recipes.RECIPES,
    health.HEALTH,
    usage.USAGE,
    events.EVENTS,
    system.SYSTEM,
    keys.KEYS,
    users.USERS,
    organisations.ORGANISATIONS,
    audit.AUDIT,
    settings_page.SETTINGS,
    guide.GUIDE,
)
