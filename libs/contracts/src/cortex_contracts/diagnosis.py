"""What went wrong with an engine, in words for the administrator."""

from cortex_contracts.base import ContractModel


class Diagnosis(ContractModel):
    """What went wrong and what to do about it."""

    code: str
    message: str
    fix: str
