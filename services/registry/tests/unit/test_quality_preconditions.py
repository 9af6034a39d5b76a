"""Conditional writes: what an If-Match header says, and when a change is refused."""

import pytest

from cortex_kit.errors import DomainError
from cortex_registry.entrypoints.preconditions import etag, parse_if_match, require_version


@pytest.mark.parametrize(
    ("header", "versions"),
    [
        (None, None),
        ("*", None),
        (" * ", None),
        ('"3"', {3}),
        ('W/"3"', {3}),
        ('"3", W/"5" ,"7"', {3, 5, 7}),
        ('"a,b", "4"', {4}),
        ('"abc"', set()),
        ('""', set()),
        ('"-1"', set()),
        ('"' + "9" * 30 + '"', set()),
    ],
)
def test_the_versions_that_an_if_match_header_names(header: str | None, versions: set[int] | None) -> None:
    assert parse_if_match(header) == (None if versions is None else frozenset(versions))


@pytest.mark.parametrize(
    "header", ["", "3", '"3', '3"', '"3" "4"', '"3",', ',"3"', "*,*", 'w/"3"', '"3";x', '"٣"', '"' + "1" * 2000 + '"']
)
def test_a_malformed_if_match_is_refused(header: str) -> None:
    with pytest.raises(DomainError) as refusal:
        parse_if_match(header)
    assert (refusal.value.code, refusal.value.status) == ("invalid_if_match", 400)


def test_a_change_of_another_version_than_the_expected_is_refused_and_told_the_present_one() -> None:
    require_version(None, 4)
    require_version(frozenset({3, 4}), 4)
    for expected in (frozenset({3}), frozenset[int]()):
        with pytest.raises(DomainError) as refusal:
            require_version(expected, 4)
        assert (refusal.value.code, refusal.value.status) == ("precondition_failed", 412)
        assert refusal.value.details == {"version": 4}
    assert parse_if_match(etag(4)) == frozenset({4})
