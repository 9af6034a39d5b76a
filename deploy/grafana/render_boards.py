"""The Grafana boards as code: `python deploy/grafana/render_boards.py` writes boards/*.json (`make docs` does it, too).

A board is rows of panels (pages.py), a panel is its queries (panels.py); places, ids and colours follow from that.
"""

import json
from pathlib import Path
from typing import Any

from pages import BOARDS
from panels import Board, Panel

FOLDER = Path(__file__).parent / "boards"
SOURCE = {"type": "prometheus", "uid": "cortex-prometheus"}
WIDTH, HEIGHT = 24, 8


def render(board: Board) -> str:
    """The board as Grafana reads it."""
    panels: list[dict[str, Any]] = []
    top = 0
    for title, row in board.rows:
        panels.append(
            {"id": len(panels) + 1, "type": "row", "title": title, "gridPos": _place(0, top, WIDTH, 1), "panels": []}
        )
        width, height = WIDTH // len(row), 4 if row[0].kind == "stat" else HEIGHT
        for column, panel in enumerate(row):
            place = _place(column * width, top + 1, width, height)
            panels.append({"id": len(panels) + 1, "gridPos": place, **_panel(panel)})
        top += 1 + height
    document = {
        "uid": board.uid,
        "title": board.title,
        "tags": ["cortex"],
        "schemaVersion": 39,
        "editable": False,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "links": [{"type": "dashboards", "title": "Cortex", "tags": ["cortex"], "asDropdown": True, "keepTime": True}],
        "templating": {"list": [_variable(name, query) for name, query in board.variables]},
        "panels": panels,
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _place(x: int, y: int, w: int, h: int) -> dict[str, int]:
    return {"x": x, "y": y, "w": w, "h": h}


def _panel(panel: Panel) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if panel.red_above is not None:
        steps.append({"color": "red", "value": panel.red_above})
    defaults: dict[str, Any] = {"unit": panel.unit, "min": 0, "thresholds": {"mode": "absolute", "steps": steps}}
    options: dict[str, Any] = {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "value", "graphMode": "area"}
    if panel.kind == "timeseries":
        defaults["custom"] = {
            "fillOpacity": 20 if panel.stacked else 5,
            "showPoints": "never",
            "stacking": {"mode": "normal" if panel.stacked else "none"},
            "thresholdsStyle": {"mode": "off" if panel.red_above is None else "line"},
        }
        options = {
            "legend": {"displayMode": "list", "placement": "bottom"},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": SOURCE,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
        "targets": [
            {"refId": chr(ord("A") + index), "datasource": SOURCE, "expr": query, "legendFormat": legend or "__auto"}
            for index, (query, legend) in enumerate(panel.queries)
        ],
    }


def _variable(name: str, query: str) -> dict[str, Any]:
    return {
        "name": name,
        "label": name.capitalize(),
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": query, "refId": name},
        "definition": query,
        "refresh": 2,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


def main() -> None:
    """Write every board."""
    FOLDER.mkdir(exist_ok=True)
    for board in BOARDS:
        (FOLDER / f"{board.uid.removeprefix('cortex-')}.json").write_text(render(board))


if __name__ == "__main__":
    main()
