"""A model as somebody sent it: a specification, and what was understood differently from how it was written."""

from dataclasses import dataclass
from typing import Any, cast

from pydantic import GetCoreSchemaHandler, JsonValue
from pydantic_core import CoreSchema, core_schema

from cortex_registry.domain.advice import FieldWarning
from cortex_registry.domain.legacy import translate
from cortex_registry.domain.specification import AnySpecification, Specification, parse_specification


@dataclass(frozen=True, slots=True)
class Submission:
    """Validates like a Specification, after old fields were translated. As a type of a body it shows the same schema."""

    specification: AnySpecification
    warnings: tuple[FieldWarning, ...] = ()

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_wrap_validator_function(_read, handler.generate_schema(Specification))


def parse_submission(fields: dict[str, JsonValue]) -> Submission:
    """A flat description, old fields allowed.

    Raises:
        DomainError: 422 `invalid_request`.
    """
    translation = translate(fields)
    return Submission(parse_specification(translation.fields), translation.warnings)


def _read(value: object, validate: core_schema.ValidatorFunctionWrapHandler) -> Submission:
    if isinstance(value, Submission):
        return value
    if not isinstance(value, dict):
        return Submission(validate(value))
    translation = translate(cast("dict[str, JsonValue]", value))
    return Submission(validate(translation.fields), translation.warnings)
