"""What can be done with a model now, by whom, and what that will do."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

from cortex_console.domain.identity import Me
from cortex_console.domain.models import ModelSummary
from cortex_contracts.rights import Right


class ModelAct(StrEnum):
    """Names in menus and requests."""

    START = "start"
    STOP = "stop"
    RESTART = "restart"
    TEST = "test"
    EDIT = "edit"
    CLONE = "clone"
    ARCHIVE = "archive"
    UNARCHIVE = "unarchive"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Offer:
    """An act, and why not, when it cannot be done."""

    act: ModelAct
    label: str
    icon: str
    why_not: str | None
    first: bool = False
    danger: bool = False


_LABELS = {
    ModelAct.START: ("Start", "o_play_arrow"),
    ModelAct.STOP: ("Stop", "o_stop"),
    ModelAct.RESTART: ("Restart", "o_restart_alt"),
    ModelAct.TEST: ("Test", "o_network_check"),
    ModelAct.EDIT: ("Edit", "o_edit"),
    ModelAct.CLONE: ("Clone", "o_content_copy"),
    ModelAct.ARCHIVE: ("Archive", "o_archive"),
    ModelAct.UNARCHIVE: ("Bring back", "o_unarchive"),
    ModelAct.DELETE: ("Delete", "o_delete"),
}
_OPERATE = frozenset({ModelAct.START, ModelAct.STOP, ModelAct.RESTART, ModelAct.TEST})
_UPSTREAM = "Others run it: change it below Settings, Upstreams."


def offers(model: ModelSummary, me: Me) -> list[Offer]:
    """Everything to offer for this model, the important one first. A viewer gets no acts, not even disabled ones."""
    if not me.may(Right.MODELS_OPERATE):
        return []
    if model.archived:
        acts = [ModelAct.UNARCHIVE, ModelAct.CLONE, ModelAct.DELETE]
    else:
        toggle = ModelAct.STOP if model.wants_to_run and model.state != "failed" else ModelAct.START
        acts = [toggle, ModelAct.TEST, ModelAct.RESTART]
        if toggle is ModelAct.START and model.wants_to_run:
            acts.append(ModelAct.STOP)
        acts += [ModelAct.EDIT, ModelAct.CLONE, ModelAct.ARCHIVE, ModelAct.DELETE]
    return [_offer(act, model, me, first=position == 0) for position, act in enumerate(acts)]


def consequences(act: ModelAct, model: ModelSummary) -> Sequence[str]:
    """What people are told before they do it; nothing for what is done without asking."""
    name = model.served_name
    match act:
        case ModelAct.STOP:
            return (
                f"Requests for {name} are refused from now on; those in flight may finish.",
                f"Its {_engines(model)} and gives its memory back.",
                "Settings, files, keys and usage stay.",
            )
        case ModelAct.RESTART:
            return (
                f"Every replica of {name} is replaced by a new one, the new one first where there is memory for both.",
                "Where there is not, requests wait until the new one has loaded.",
            )
        case ModelAct.ARCHIVE:
            return (
                f"{name} is stopped and leaves the lists; requests for it are refused.",
                "Its names stay taken, and it can be brought back.",
                "Its files stay.",
            )
        case ModelAct.DELETE:
            return (
                f"{name} is stopped and forgotten, with its revisions. This cannot be undone.",
                "Its model files stay on the disk.",
                "Usage that was recorded stays.",
            )
        case ModelAct.START | ModelAct.TEST | ModelAct.EDIT | ModelAct.CLONE | ModelAct.UNARCHIVE:
            return ()
        case _:
            assert_never(act)


def _engines(model: ModelSummary) -> str:
    return "engine ends" if model.replicas <= 1 else f"{model.replicas} engines end"


def _offer(act: ModelAct, model: ModelSummary, me: Me, *, first: bool) -> Offer:
    label, icon = _LABELS[act]
    if model.state == "failed" and act is ModelAct.START and model.wants_to_run:
        label = "Try again"
    why_not = me.why_not(Right.MODELS_OPERATE if act in _OPERATE else Right.MODELS_WRITE)
    if why_not is None and model.external and act is not ModelAct.TEST:
        why_not = _UPSTREAM
    if why_not is None and act is ModelAct.TEST and model.healthy == 0:
        why_not = "No replica is healthy."
    return Offer(act, label, icon, why_not, first=first, danger=act is ModelAct.DELETE)
