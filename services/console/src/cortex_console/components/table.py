"""Tables: rows beside each other on a wide screen, cards on a narrow one; sorted, searched, with acts in a menu."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from nicegui import events, ui

from cortex_console.components.notify import explain
from cortex_console.components.text import labelled

NARROW = 700
"""Below this many pixels rows become cards."""

TEXT = '<span class="c-cell">{{ props.row.%s }}</span>'
STRONG = '<span class="c-strong">{{ props.row.%s }}</span>'
MONO = '<code class="c-code">{{ props.row.%s }}</code>'
BADGE = """<span :class="'c-badge c-dot c-' + props.row.%s_tone">{{ props.row.%s }}</span>"""
LINK = '<a class="c-link" :href="props.row.%s_href">{{ props.row.%s }}</a>'
TWO_LINES = """<span class="c-two"><a class="c-link" :href="props.row.%s_href">{{ props.row.%s }}</a>
<span class="c-hint c-mono">{{ props.row.%s_note }}</span></span>"""
BADGE_NOTE = """<span class="c-two"><span><span :class="'c-badge c-dot c-' + props.row.%s_tone">{{ props.row.%s }}</span></span>
<span class="c-hint">{{ props.row.%s_note }}</span></span>"""
NAMED = """<span class="c-two"><span class="c-strong">{{ props.row.%s }}</span>
<span v-if="props.row.%s_note" class="c-hint">{{ props.row.%s_note }}</span></span>"""
TIME = '<time class="c-nowrap" :datetime="props.row.%s_at" :title="props.row.%s_exact">{{ props.row.%s }}</time>'
"""`time_cells` of domain/formatting.py makes its fields."""
TAG = """<span :class="'c-tag c-tag-' + props.row.%s_kind">{{ props.row.%s }}</span>"""
_ACTIONS = """
<span class="c-row-actions">
  <template v-for="act in props.row.actions" :key="act.id">
    <q-btn v-if="act.first" flat dense no-caps class="c-button c-button-plain c-row-act" :icon="act.icon" :label="act.label"
      :class="{ 'c-disabled': act.why_not }" :aria-disabled="act.why_not ? 'true' : null"
      :aria-label="act.label + ' ' + props.row.row_name"
      @click.stop="() => $parent.$emit('act', { key: props.key, act: act.id })">
      <q-tooltip v-if="act.why_not">{{ act.why_not }}</q-tooltip>
    </q-btn>
  </template>
  <q-btn v-if="props.row.actions.some((act) => !act.first)" flat round dense icon="o_more_horiz" class="c-icon-button"
    :aria-label="'More for ' + props.row.row_name" aria-haspopup="menu">
    <q-menu class="c-menu" anchor="bottom right" self="top right">
      <q-list dense>
        <q-item v-for="act in props.row.actions.filter((one) => !one.first)" :key="act.id" clickable v-close-popup
          :class="{ 'c-disabled': act.why_not, 'c-bad-text': act.danger }" :aria-disabled="act.why_not ? 'true' : null"
          @click="() => $parent.$emit('act', { key: props.key, act: act.id })">
          <q-item-section avatar><q-icon :name="act.icon" size="18px" aria-hidden="true" /></q-item-section>
          <q-item-section><q-item-label>{{ act.label }}</q-item-label>
            <q-item-label v-if="act.why_not" caption>{{ act.why_not }}</q-item-label></q-item-section>
        </q-item>
      </q-list>
    </q-menu>
  </q-btn>
</span>"""


@dataclass(frozen=True, slots=True)
class Column:
    """One column. `cell` is a Vue snippet over `props.row`, like BADGE: every %s becomes the name."""

    name: str
    label: str
    cell: str = TEXT
    align: Literal["left", "right", "center"] = "left"
    sort_by: str = ""
    """Another field to sort by, e.g. the number behind a text; `-` for a column that is not sorted."""
    wide: bool = False
    """Wraps, and has room to."""


@dataclass(frozen=True, slots=True)
class Act:
    """Something that can be done with a row."""

    id: str
    label: str
    icon: str
    why_not: str | None = None
    first: bool = False
    """Beside the row, not in its menu."""
    danger: bool = False

    def cell(self) -> dict[str, Any]:
        """For the row's field `actions`."""
        return {name: getattr(self, name) for name in ("id", "label", "icon", "why_not", "first", "danger")}


OnAct = Callable[[str, str], Awaitable[None]]
"""Given the row's key and the act's id."""


class _LiveTable(ui.table, component="live_table.js"):
    """`ui.table` whose cells are not made anew at each update of the page."""


class Table:
    """A table of dictionaries. A row with acts has `actions` (a list of `Act.cell()`) and `row_name` for their labels."""

    def __init__(
        self,
        label: str,
        columns: Sequence[Column],
        *,
        key: str = "id",
        on_act: OnAct | None = None,
        page_size: int = 25,
    ) -> None:
        self._acts: dict[tuple[str, str], Mapping[str, Any]] = {}
        self._key = key
        self._paged = page_size > 0
        shown = [_column(column) for column in columns]
        if on_act is not None:
            shown.append({"name": "actions", "label": "", "field": "actions", "align": "right", "sortable": False})
        self.element = _LiveTable(rows=[], columns=shown, row_key=key, pagination=page_size).classes("c-table")
        self.element.props(
            f'flat dense :grid="Quasar.Screen.width < {NARROW}" :rows-per-page-options="[25, 50, 100, 0]"'
        )
        self.element.props("binary-state-sort")
        labelled(self.element, label)
        cells = {column.name: column.cell.replace("%s", column.name) for column in columns}
        if on_act is not None:
            cells["actions"] = _ACTIONS
        slots = {f"body-cell-{name}": f'<q-td :props="props">{cell}</q-td>' for name, cell in cells.items()}
        slots |= {"item": _card(columns, cells), "no-data": '<div class="c-no-rows">Nothing matches.</div>'}
        self.element.props["cells"] = slots
        for slot in slots:
            self.element.add_slot(slot)  # empty and unused: NiceGUI makes its own for fields that are lists otherwise
        if on_act is not None:
            self.element.on("act", self._handler(on_act))

    def show(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Show these rows instead of those of before; sorting and page stay."""
        self._acts = {(str(row[self._key]), act["id"]): act for row in rows for act in row.get("actions", ())}
        new = [dict(row) for row in rows]
        if new != self.element.rows:
            self.element.rows = new
        self.element.props["hide-pagination"] = not self._paged or len(new) <= 25

    def _handler(self, on_act: OnAct) -> Callable[[events.GenericEventArguments], Awaitable[None]]:
        async def handle(event: events.GenericEventArguments) -> None:
            key, act = str(event.args["key"]), str(event.args["act"])
            known = self._acts.get((key, act))
            if known is None:
                return
            if known["why_not"]:
                explain(known["why_not"])
                return
            await on_act(key, act)

        return handle


def _column(column: Column) -> dict[str, Any]:
    classes = "c-wide" if column.wide else ""
    return {
        "name": column.name,
        "label": column.label,
        "field": column.sort_by if column.sort_by not in ("", "-") else column.name,
        "align": column.align,
        "sortable": column.sort_by != "-",
        "classes": classes,
        "headerClasses": classes,
    }


def _card(columns: Sequence[Column], cells: Mapping[str, str]) -> str:
    first, *rest = columns
    lines = "".join(f"<div><dt>{column.label}</dt><dd>{cells[column.name]}</dd></div>" for column in rest)
    acts = f'<div class="c-row-card-foot">{cells["actions"]}</div>' if "actions" in cells else ""
    return (
        f'<div class="c-row-card"><div class="c-row-card-head">{cells[first.name]}</div>'
        f'<dl class="c-facts">{lines}</dl>{acts}</div>'
    )
