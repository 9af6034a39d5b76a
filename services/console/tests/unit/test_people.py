"""Users, audit, webhooks, backups, upstreams and the guide: what is decided without a browser."""

from dataclasses import replace
from datetime import UTC, datetime
from importlib.resources import files

import pytest

from cortex_console.domain.audit import action_tone, audit_query, audit_row, differences, subject_name
from cortex_console.domain.backups import backup_row, estimate_text, export_body, job_row, progress
from cortex_console.domain.external_upstreams import specification, upstream_row
from cortex_console.domain.formatting import time_cells
from cortex_console.domain.guide import Kind, Piece, pieces, sections
from cortex_console.domain.identity import Me
from cortex_console.domain.people import Organisation as Org
from cortex_console.domain.people import User, browser_name, organisation_row, role_text, user_row, why_not_touch
from cortex_console.domain.states import Tone
from cortex_console.domain.webhooks import attempt_lines, delivery_row, webhook_state
from cortex_console.domain.webhooks import test_outcome as outcome_of_test
from cortex_console.pages.catalogue import PAGES
from cortex_contracts.rights import Right

NOW = datetime(2026, 11, 28, 20, 0, tzinfo=UTC)
ADMIN = Me("anna", "admin", "u1", must_change_password=False, rights=frozenset(right.value for right in Right))
USER = User("u2", "bert", "Bert", "operator", "o1", disabled=False, one_time=False, last_login_at="", created_at="2026-11-28T19:00:00Z", version=3)  # fmt: skip


def test_a_time_says_how_long_ago_and_exactly_when() -> None:
    assert time_cells("at", "2026-11-28T19:58:00Z", NOW)["at"] == "2 min ago"
    assert time_cells("at", "2026-11-28T19:58:00Z", NOW)["at_exact"] == "2026-11-28 19:58:00 UTC"
    assert time_cells("at", None, NOW) == {"at": "–", "at_exact": "", "at_at": "", "at_sort": 0.0}


@pytest.mark.parametrize(
    ("user", "state"),
    [
        (USER, ("active", Tone.GOOD)),
        (replace(USER, one_time=True), ("one-time password", Tone.WARN)),
        (replace(USER, one_time=True, disabled=True), ("disabled", Tone.BAD)),
    ],
)
def test_the_state_of_a_user(user: User, state: tuple[str, Tone]) -> None:
    assert user.state == state


def test_a_row_of_a_user_names_the_organisation_and_who_never_came() -> None:
    row = user_row(USER, {"o1": "Research"}, NOW)
    assert (row["organisation"], row["signed_in"], row["created"]) == ("Research", "never", "1 h ago")
    assert user_row(replace(USER, org_id="gone"), {}, NOW)["organisation"] == "–"


def test_nobody_touches_themselves_and_viewers_nobody() -> None:
    assert why_not_touch(USER, ADMIN) is None
    assert "you" in (why_not_touch(replace(USER, id="u1"), ADMIN) or "")
    assert "administrator" in (why_not_touch(USER, replace(ADMIN, rights=frozenset())) or "")


def test_roles_say_what_the_lower_ones_may() -> None:
    assert "sees models" in role_text("admin")
    assert "settings" not in role_text("operator")
    assert role_text("root") == ""


@pytest.mark.parametrize(("users", "text"), [(0, "no users"), (1, "1 user"), (7, "7 users")])
def test_users_are_counted(users: int, text: str) -> None:
    assert organisation_row(Org("o", "Research", users, "2026-11-28T19:00:00Z", 1), NOW)["users"] == text


@pytest.mark.parametrize(
    ("agent", "name"),
    [
        ("Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/130.0 Safari/537.36", "Chrome on Linux"),
        ("Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 Chrome/130.0 Safari/537.36 Edg/130.0", "Edge on Windows"),
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) Version/18.0 Safari/604.1", "Safari on iPhone"),
        ("cortex/0.1", "cortex"),
        ("", "unknown program"),
    ],
)
def test_browsers_have_names(agent: str, name: str) -> None:
    assert browser_name(agent) == name


def test_the_filters_of_the_audit_log_become_its_query() -> None:
    wanted = {"actor": " anna ", "kind": "user", "subject": "model/1", "days": "7"}
    assert audit_query(wanted, NOW) == {
        "actor": "anna",
        "action": "user.*",
        "subject": "model/1",
        "since": "2026-11-21T20:00:00+00:00",
    }
    assert set(audit_query({"kind": "nothing", "days": "3"}, NOW).values()) == {None}
    assert audit_query({"subject": "user"}, NOW)["subject"] == "user*"


ENTRY = {
    "id": 7,
    "at": "2026-11-28T19:00:00Z",
    "actor": "anna",
    "action": "model.update",
    "subject": "model/01a223f4-cce8-7838-bec8-bcd89f5e3f70",
    "changed": ["context_size"],
    "before": {"context_size": 4096, "name": "tiny"},
    "after": {"context_size": 8192, "name": "tiny"},
}


def test_an_entry_says_what_changed() -> None:
    assert [(one.name, one.before, one.after) for one in differences(ENTRY)] == [("context_size", "4096", "8192")]
    made = ENTRY | {"changed": [], "before": {}, "after": {"name": "tiny", "aliases": [], "ngl": None}}
    assert [one.name for one in differences(made)] == ["name"]
    assert audit_row(ENTRY, NOW)["subject_note"] == "model/…9f5e3f70"
    own = {"subject": "user/u1", "user_id": "u1", "actor": "anna"}
    assert [subject_name(one) for one in (ENTRY, own, {"subject": "key/9"})] == ["tiny", "anna", "key"]


def test_acts_that_take_away_look_so() -> None:
    tones = [action_tone(action) for action in ("key.revoke", "auth.login_failed", "org.create", "model.start")]
    assert tones == [Tone.BAD, Tone.BAD, Tone.GOOD, Tone.NEUTRAL]


@pytest.mark.parametrize(
    ("webhook", "state"),
    [
        ({"enabled": True}, "on"),
        ({"enabled": True, "last_success_at": "2026-11-28T19:00:00Z"}, "delivers"),
        ({"enabled": True, "failures": 1, "last_error": "refused"}, "trying again"),
        ({"enabled": True, "failures": 9, "failing_since": "2026-11-28T19:00:00Z"}, "failing"),
        ({"enabled": False}, "off"),
        ({"enabled": False, "disabled_reason": "410"}, "switched off"),
    ],
)
def test_the_state_of_a_webhook(webhook: dict[str, object], state: str) -> None:
    assert webhook_state(webhook, NOW)[0] == state


def test_a_delivery_says_how_it_went_and_goes_on() -> None:
    waiting = {
        "id": 1,
        "status": "pending",
        "attempts": 2,
        "last_error": "refused",
        "next_attempt_at": "2026-11-28T20:01:00Z",
    }
    assert delivery_row(waiting, NOW)["status_note"] == "refused, again at 20:01:00 UTC"
    assert delivery_row({"status": "delivered", "last_status": 204}, NOW)["status_note"] == "answer 204"
    log = {"log": [{"at": "2026-11-28T20:01:00Z", "status": 500, "duration_ms": 12.4}]}
    assert attempt_lines(log) == [("2026-11-28 20:01:00 UTC", "answer 500", "12 ms")]
    assert outcome_of_test({"delivered": True, "status": 204, "duration_ms": 3}) == "Delivered: answer 204 after 3 ms."
    assert "refused" in outcome_of_test({"delivered": False, "error": "refused"})


@pytest.mark.parametrize(
    ("job", "share"),
    [({}, None), ({"done_bytes": 50, "total_bytes": 200}, 0.25), ({"done_bytes": 300, "total_bytes": 200}, 1.0)],
)
def test_progress_of_a_job(job: dict[str, object], share: float | None) -> None:
    assert progress(job)[0] == share


def test_backups_say_why_they_cannot_be_restored() -> None:
    row = backup_row({"folder": "b", "restorable": False, "problems": [{"message": "Models run."}]}, NOW)
    assert (row["restorable"], row["restorable_note"]) == ("not now", "Models run.")
    failed = {
        "status": "failed",
        "kind": "export",
        "folder": "b",
        "error": {"message": "Disk full.", "fix": "Make room."},
    }
    assert job_row(failed, NOW)["status_note"] == "Disk full. Make room."
    assert "does not fit" in estimate_text({"total_bytes": 5, "free_bytes": 1, "fits": False})
    body = export_body({"database": True, "models": False, "usage": False, "folder": ""})
    assert body == {"folder": None, "include": ["database"], "usage": False}


FORM = {
    "served_model_name": "q",
    "engine_type": "vllm",
    "task": "generate",
    "enabled": True,
    "name": "",
    "served_name": "",
}


def test_endpoints_of_an_upstream_keep_their_keys_unless_one_is_given() -> None:
    urls = "http://a:1\n http://b:2 "
    kept = specification(FORM | {"endpoints": urls, "api_key": ""})
    assert kept["endpoints"] == [{"url": url, "served_name": None} for url in ("http://a:1", "http://b:2")]
    assert [one["api_key"] for one in specification(FORM | {"endpoints": urls, "api_key": "k"})["endpoints"]] == [
        "k",
        "k",
    ]
    assert kept["name"] is None
    assert upstream_row({"enabled": False, "state": "running"})["state"] == "off"


def test_the_guide_is_read_into_blocks() -> None:
    [one] = sections("## first | First\nA line\nand more.\n\n1. one\n2. two\n\n    code\n\n- `a` and [b](/c)\n")
    assert [block.kind for block in one.blocks] == [Kind.PARAGRAPH, Kind.STEPS, Kind.CODE, Kind.LIST]
    assert pieces(one.blocks[3].lines[0]) == [Piece("a", "code"), Piece(" and "), Piece("b", "link", "/c")]
    assert one.matches("FIRST more")
    assert not one.matches("first nothing")


def test_the_guide_leads_to_pages_that_exist() -> None:
    guide = sections((files("cortex_console") / "assets" / "guide.md").read_text("utf-8"))
    assert len(guide) >= 15
    assert len({section.anchor for section in guide}) == len(guide)
    paths = {page.path for page in PAGES}
    lines = [
        line for section in guide for block in section.blocks if block.kind is not Kind.CODE for line in block.lines
    ]
    hrefs = {piece.href.partition("#")[0] for line in lines for piece in pieces(line) if piece.href}
    assert hrefs <= paths
