"""Light and dark in one place: the colours of pages, of Quasar's components and of charts."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

THEME_COOKIE = "cortex_theme"


@dataclass(frozen=True, slots=True)
class Palette:
    """One theme. Text on its ground is at least 4.5:1 everywhere, borders of controls 3:1."""

    ground: str
    surface: str
    raised: str
    sunken: str
    hover: str
    border: str
    border_strong: str
    text: str
    muted: str
    accent: str
    """Links, marks, focus."""
    accent_soft: str
    button: str
    """Ground of the button that matters; its text is white."""
    danger_button: str
    good: str
    good_soft: str
    busy: str
    busy_soft: str
    warn: str
    warn_soft: str
    bad: str
    bad_soft: str
    neutral_soft: str
    shadow: str
    series: tuple[str, ...]
    """Lines and bars of charts, in this order."""


LIGHT = Palette(
    ground="#f6f7f9",
    surface="#ffffff",
    raised="#ffffff",
    sunken="#eef0f4",
    hover="#f0f2f6",
    border="#dfe3ea",
    border_strong="#868f9e",
    text="#171b23",
    muted="#566072",
    accent="#2a56c6",
    accent_soft="#e8eefc",
    button="#2a56c6",
    danger_button="#b92530",
    good="#14693f",
    good_soft="#e0f3e8",
    busy="#1f5fa8",
    busy_soft="#e2eefb",
    warn="#855300",
    warn_soft="#fcf0d7",
    bad="#ab1f2b",
    bad_soft="#fce8e9",
    neutral_soft="#eceff3",
    shadow="0 1px 2px rgb(20 27 40 / 6%), 0 8px 24px rgb(20 27 40 / 10%)",
    series=("#2a56c6", "#0f7b6c", "#b05a00", "#8a3ffc", "#b92530", "#5a6578"),
)
DARK = Palette(
    ground="#0e1116",
    surface="#151a21",
    raised="#1b212a",
    sunken="#0a0d11",
    hover="#1e252f",
    border="#29313c",
    border_strong="#6b7788",
    text="#e7eaf0",
    muted="#9ba6b6",
    accent="#8fb0ff",
    accent_soft="#1c2a4a",
    button="#3a66dc",
    danger_button="#c43a44",
    good="#6fd6a0",
    good_soft="#12301f",
    busy="#86bdf7",
    busy_soft="#132a42",
    warn="#efbe63",
    warn_soft="#35270c",
    bad="#ff9a9f",
    bad_soft="#3d171b",
    neutral_soft="#232a34",
    shadow="0 1px 2px rgb(0 0 0 / 40%), 0 8px 28px rgb(0 0 0 / 50%)",
    series=("#8fb0ff", "#5fd0bf", "#f0b05f", "#c49bff", "#ff9a9f", "#a5b0c0"),
)


def palette(dark: bool) -> Palette:
    """The colours of a theme."""
    return DARK if dark else LIGHT


def stylesheet() -> str:
    """CSS variables `--c-…` of both themes, and what Quasar calls them."""
    return f":root, body.body--light {{{_variables(LIGHT)}}}\n:root.dark, body.body--dark {{{_variables(DARK)}}}\n"


def chart_options(dark: bool) -> dict[str, object]:
    """What every ECharts chart begins with; a chart's own options go over it."""
    colours = palette(dark)
    font: Mapping[str, object] = {"color": colours.muted, "fontFamily": "inherit", "fontSize": 11}
    return {
        "backgroundColor": "transparent",
        "color": list(colours.series),
        "textStyle": {"color": colours.text, "fontFamily": "inherit"},
        "animation": False,
        "grid": {"left": 8, "right": 12, "top": 28, "bottom": 4, "containLabel": True},
        "legend": {"textStyle": dict(font), "icon": "roundRect", "itemWidth": 10, "itemHeight": 4, "top": 0, "left": 0},
        "tooltip": {
            "trigger": "axis",
            "backgroundColor": colours.raised,
            "borderColor": colours.border,
            "textStyle": {"color": colours.text, "fontSize": 12},
        },
    }


def chart_axis(dark: bool) -> dict[str, object]:
    """What an axis of a chart begins with."""
    colours = palette(dark)
    return {
        "axisLine": {"lineStyle": {"color": colours.border}},
        "axisTick": {"show": False},
        "axisLabel": {"color": colours.muted, "fontSize": 11, "hideOverlap": True},
        "splitLine": {"lineStyle": {"color": colours.border}},
        "nameTextStyle": {"color": colours.muted, "fontSize": 11},
    }


def _variables(colours: Palette) -> str:
    own = {f"--c-{name.replace('_', '-')}": value for name, value in asdict(colours).items() if name != "series"}
    own |= {f"--c-series-{number}": value for number, value in enumerate(colours.series, 1)}
    quasar = {
        "--q-primary": colours.button,
        "--q-positive": colours.good,
        "--q-negative": colours.danger_button,
        "--q-warning": colours.warn,
        "--q-info": colours.busy,
        "--q-dark": colours.surface,
        "--q-dark-page": colours.ground,
    }
    scheme = "dark" if colours is DARK else "light"
    return "".join(f"{name}:{value};" for name, value in (own | quasar).items()) + f"color-scheme:{scheme};"
