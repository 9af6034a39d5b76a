"""Judges what the registry finds of itself, and the clocks of others."""

from datetime import datetime

from cortex_contracts.doctor import CheckV1, CheckVerdict
from cortex_registry.domain.outbox import Backlog

CLOCK_WARNING_S = 2.0
CLOCK_FAILED_S = 60.0
BACKLOG_WARNING_S = 10.0


def judge_component(name: str, reason: str | None) -> CheckV1:
    """Something the registry needs; `reason` says why it is not there."""
    if reason is None:
        return CheckV1(name=name, verdict=CheckVerdict.OK, found="ready")
    fix = "Start it, and look into its log; the registry connects again by itself."
    return CheckV1(name=name, verdict=CheckVerdict.FAILED, found=reason, fix=fix)


def judge_clock(whose: str, theirs: datetime, ours: datetime) -> CheckV1:
    """How far a clock is from the registry's. Expiry of keys and sessions and the order of events depend on it."""
    seconds = abs((theirs - ours).total_seconds())
    found = f"{whose}: {seconds:.1f} s from the registry's clock"
    verdict = CheckVerdict.OK
    if seconds >= CLOCK_WARNING_S:
        verdict = CheckVerdict.FAILED if seconds >= CLOCK_FAILED_S else CheckVerdict.WARNING
    fix = "Let a time service (chrony, systemd-timesyncd) set both clocks." if verdict is not CheckVerdict.OK else None
    return CheckV1(name="clock", verdict=verdict, found=found, fix=fix)


def judge_backlog(backlog: Backlog) -> CheckV1:
    """Changes that wait to be told to the others."""
    found = f"{backlog.rows} changes wait, the oldest for {backlog.age_s:.0f} s"
    if backlog.rows and backlog.age_s >= BACKLOG_WARNING_S:
        fix = "See whether NATS is reached and one registry is the relay (cortex_registry_relay_leader)."
        return CheckV1(name="outbox", verdict=CheckVerdict.WARNING, found=found, fix=fix)
    return CheckV1(name="outbox", verdict=CheckVerdict.OK, found=found)


def silent_node(node: str) -> CheckV1:
    """A node that is known and does not answer."""
    fix = f"Start the orchestrator of {node}, or forget the node if the host is gone."
    return CheckV1(name="orchestrator", verdict=CheckVerdict.FAILED, found=f"{node} does not answer", fix=fix)


def no_nodes() -> CheckV1:
    """Nobody runs engines."""
    fix = "Start an orchestrator: without one no model runs."
    return CheckV1(name="orchestrator", verdict=CheckVerdict.FAILED, found="no node is known", fix=fix)
