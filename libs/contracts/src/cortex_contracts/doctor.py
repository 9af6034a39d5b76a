"""Examination of an installation: one check, one verdict, one fix."""

from enum import StrEnum

from pydantic import Field

from cortex_contracts.base import ContractModel, NodeId, UtcDatetime


class CheckVerdict(StrEnum):
    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


class CheckV1(ContractModel):
    """What was looked at, what was found, and what to do about it (None when nothing need be done)."""

    name: str
    verdict: CheckVerdict
    found: str
    fix: str | None = None


class ExamineRequestV1(ContractModel):
    """Examine the node: its runtime, images, GPUs, disks, memory and models folder."""


class ExamineResultV1(ContractModel):
    """`time` is the node's clock when it answered."""

    node: NodeId
    time: UtcDatetime
    checks: tuple[CheckV1, ...] = Field(default=())


def worst(checks: tuple[CheckV1, ...]) -> CheckVerdict:
    """The gravest verdict; ok when there is no check."""
    order = (CheckVerdict.FAILED, CheckVerdict.WARNING)
    return next((one for one in order if any(check.verdict is one for check in checks)), CheckVerdict.OK)
