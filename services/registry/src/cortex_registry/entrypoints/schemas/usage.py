"""Answers about usage."""

from pydantic import BaseModel

from cortex_contracts.events import UsageRecordedV1
from cortex_registry.domain.usage import UsageReport, UsageTotals


class UsageAnswer(BaseModel):
    """The newest records that match, and sums over all that match."""

    items: list[UsageRecordedV1]
    totals: UsageTotals

    @classmethod
    def of(cls, report: UsageReport) -> "UsageAnswer":
        return cls(items=list(report.records), totals=report.totals)
