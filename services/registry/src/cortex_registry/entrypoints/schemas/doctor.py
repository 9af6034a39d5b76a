"""Answers of the doctor."""

from pydantic import BaseModel, ConfigDict
from pydantic.config import JsonDict

from cortex_contracts.doctor import CheckVerdict
from cortex_registry.handlers.doctor import Examination

_EXAMPLE: JsonDict = {
    "verdict": "warning",
    "items": [
        {"where": "registry", "name": "postgres", "verdict": "ok", "found": "ready", "fix": None},
        {
            "where": "gpu-1",
            "name": "disk of models",
            "verdict": "warning",
            "found": "/srv/models: 11.3 of 930.0 GiB free",
            "fix": "Free space: docker system df and docker image prune show and remove what is unused.",
        },
    ],
}


class FindingAnswer(BaseModel):
    """One check: where it was made, what was found, and what to do (null: nothing)."""

    where: str
    name: str
    verdict: CheckVerdict
    found: str
    fix: str | None


class ExaminationAnswer(BaseModel):
    """`verdict` is the gravest of all."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    verdict: CheckVerdict
    items: list[FindingAnswer]

    @classmethod
    def of(cls, examination: Examination) -> "ExaminationAnswer":
        items = [
            FindingAnswer(where=one.where, name=one.check.name, verdict=one.check.verdict, found=one.check.found,
                          fix=one.check.fix)
            for one in examination.findings
        ]  # fmt: skip
        return cls(verdict=examination.verdict, items=items)
