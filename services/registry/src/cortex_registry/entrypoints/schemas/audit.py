"""Questions and answers about the audit log."""

from datetime import datetime

from pydantic import BaseModel, Field, JsonValue

from cortex_contracts.base import UtcDatetime
from cortex_registry.domain.audit import AuditEntry, AuditFilter
from cortex_registry.handlers.audit import ExportFormat

BIGGEST = 2**63 - 1


class AuditQuery(BaseModel):
    """Which entries somebody wants."""

    actor: str | None = Field(default=None, min_length=1, max_length=128, description="User name.")
    action: str | None = Field(
        default=None, min_length=1, max_length=64, description="`*` at the end is the rest.", examples=["model.*"]
    )
    subject: str | None = Field(
        default=None, min_length=1, max_length=160, description="`*` at the end is the rest.", examples=["key/*"]
    )
    request_id: str | None = Field(default=None, min_length=1, max_length=128)
    since: UtcDatetime | None = None
    until: UtcDatetime | None = None

    def wanted(self) -> AuditFilter:
        return AuditFilter(self.actor, self.action, self.subject, self.request_id, self.since, self.until)


class AuditPageQuery(AuditQuery):
    """Which page of them."""

    after: int | None = Field(default=None, ge=0, le=BIGGEST, description="`next` of the page before.")
    limit: int = Field(default=100, ge=1, le=1000)


class AuditExportQuery(AuditQuery):
    """In which form."""

    format: ExportFormat = "csv"


class AuditAnswer(BaseModel):
    """Who did what, from where, before and after."""

    id: int
    at: datetime
    actor: str
    action: str = Field(examples=["model.update"])
    subject: str = Field(examples=["model/019c2f4e-0000-7000-8000-00000000000a"])
    request_id: str | None
    user_id: str | None
    address: str | None
    changed: list[str] = Field(description="Names of the fields that changed.")
    before: dict[str, JsonValue]
    after: dict[str, JsonValue]
    detail: dict[str, JsonValue] = Field(description="What else is known.")

    @classmethod
    def of(cls, entry: AuditEntry) -> "AuditAnswer":
        flat = entry.flat()
        filled = {name: flat[name] or {} for name in ("before", "after", "detail")}
        return cls.model_validate(flat | filled | {"changed": flat["changed"] or []})


class AuditList(BaseModel):
    items: list[AuditAnswer]
    next: int | None = Field(description="Give it as `after` for the next page.")
