"""Both themes keep the contrast that WCAG AA asks for."""

import re

import pytest

from cortex_console.theme import DARK, LIGHT, Palette, chart_options, stylesheet


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
def test_text_is_readable(palette: Palette) -> None:
    grounds = (palette.ground, palette.surface, palette.raised, palette.hover, palette.neutral_soft)
    for ground in grounds:
        for text in (palette.text, palette.muted):
            assert contrast(text, ground) >= 4.5, (text, ground)
    for ground in (palette.ground, palette.surface, palette.accent_soft, palette.hover):
        assert contrast(palette.accent, ground) >= 4.5, ground
    for tone in ("good", "busy", "warn", "bad"):
        strong, soft = getattr(palette, tone), getattr(palette, f"{tone}_soft")
        assert contrast(strong, soft) >= 4.5, tone
        assert contrast(strong, palette.surface) >= 4.5, tone
    for button in (palette.button, palette.danger_button):
        assert contrast("#ffffff", button) >= 4.5, button
    assert contrast(palette.border_strong, palette.surface) >= 3
    assert all(contrast(line, palette.surface) >= 3 for line in palette.series)


def test_every_colour_that_style_sheets_name_exists() -> None:
    from importlib.resources import files  # noqa: PLC0415

    defined = set(re.findall(r"(--c-[a-z-]+):", stylesheet()))
    for sheet in (files("cortex_console") / "assets").iterdir():
        if sheet.name.endswith(".css"):
            text = sheet.read_text("utf-8")
            assert set(re.findall(r"var\((--c-[a-z-]+)\)", text)) <= defined, sheet.name
            assert re.findall(r"#[0-9a-f]{6}\b", text) == [], f"{sheet.name}: colours belong into theme.py"


def test_charts_follow_the_theme() -> None:
    assert chart_options(dark=True) != chart_options(dark=False)
