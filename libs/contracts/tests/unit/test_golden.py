"""Messages of every version, as they were first written, must parse for ever."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from cortex_contracts import asyncapi, doctor, documents, estimates, images, library, operations, rpc
from cortex_contracts.base import ContractModel
from cortex_contracts.documents import Document
from cortex_contracts.envelope import MAX_BATCH, join_batch, parse_envelope, split_batch
from cortex_contracts.events import ALL_EVENTS, EVENT_BY_TYPE
from cortex_contracts.streams import CONSUMERS, streams

GOLDEN = Path(__file__).parents[1] / "golden"
DOCUMENTS = {
    name: value
    for name, value in vars(documents).items()
    if isinstance(value, type) and issubclass(value, Document) and value is not Document
}
MESSAGES = {
    name: value
    for module in (rpc, estimates, library, operations, doctor, images)
    for name, value in vars(module).items()
    if isinstance(value, type)
    and issubclass(value, ContractModel)
    and value.__module__ == module.__name__
    and name.endswith("V1")
}


def assert_kept(golden: Any, dumped: Any, where: str = "") -> None:
    """Every field of the golden message is still there, with its value: nothing renamed, retyped or dropped."""
    if isinstance(golden, dict):
        for key, value in golden.items():
            assert key in dumped, f"{where}.{key} is gone"
            assert_kept(value, dumped[key], f"{where}.{key}")
    elif isinstance(golden, list):
        assert len(golden) == len(dumped), where
        for index, (left, right) in enumerate(zip(golden, dumped, strict=True)):
            assert_kept(left, right, f"{where}[{index}]")
    else:
        assert golden == dumped, where


@pytest.mark.parametrize("event", ALL_EVENTS, ids=lambda event: event.type_name())
def test_event_of_every_version_still_parses(event: Any) -> None:
    raw = (GOLDEN / "events" / f"{event.type_name()}.json").read_text()
    envelope = parse_envelope(raw)
    assert type(envelope.data) is event
    assert_kept(json.loads(raw), json.loads(envelope.model_dump_json()))


def examples(folder: str) -> list[Path]:
    """Golden files; `<Class>+<what was added>.json` holds a later, fuller example of the same version."""
    return sorted((GOLDEN / folder).glob("*.json"))


@pytest.mark.parametrize("path", examples("documents"), ids=lambda path: path.stem)
def test_document_of_every_version_still_parses(path: Path) -> None:
    raw = path.read_text()
    document = DOCUMENTS[path.stem.split("+")[0]].model_validate_json(raw)
    assert_kept(json.loads(raw), json.loads(document.model_dump_json()))


@pytest.mark.parametrize("path", examples("rpc"), ids=lambda path: path.stem)
def test_request_and_reply_of_every_version_still_parse(path: Path) -> None:
    raw = path.read_text()
    message = MESSAGES[path.stem.split("+")[0]].model_validate_json(raw)
    assert_kept(json.loads(raw), json.loads(message.model_dump_json()))


def test_no_golden_file_lost_its_class() -> None:
    assert {path.stem for path in (GOLDEN / "events").glob("*.json")} == set(EVENT_BY_TYPE)
    assert {path.stem.split("+")[0] for path in examples("documents")} == set(DOCUMENTS)
    assert {path.stem.split("+")[0] for path in examples("rpc")} == set(MESSAGES)


def test_a_newer_writer_does_not_break_an_older_reader() -> None:
    raw = json.loads((GOLDEN / "events" / "model.created.v1.json").read_text())
    raw["data"]["added_later"] = 1
    raw["addedlater"] = "x"
    assert parse_envelope(json.dumps(raw)).subject == raw["subject"]


@pytest.mark.parametrize("path", examples("batches"), ids=lambda path: path.stem)
def test_a_batch_of_every_version_still_parses(path: Path) -> None:
    parts = split_batch(path.read_bytes())
    golden = json.loads(path.read_text())
    assert len(parts) == len(golden) > 1
    for part, expected in zip(parts, golden, strict=True):
        envelope = parse_envelope(part)
        assert envelope.type == path.stem
        assert_kept(expected, json.loads(envelope.model_dump_json()))


def test_a_single_event_is_a_batch_of_one_left_as_it_is() -> None:
    raw = (GOLDEN / "events" / "usage.recorded.v1.json").read_bytes()
    assert split_batch(raw) == (raw,)
    assert [json.loads(part) for part in split_batch(join_batch([raw, raw]))] == [json.loads(raw)] * 2


@pytest.mark.parametrize("raw", [b"[", b"[1,", b"[{}] x", join_batch([b"{}"] * (MAX_BATCH + 1))])
def test_what_is_no_batch_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        split_batch(raw)


def test_messages_are_frozen() -> None:
    envelope = parse_envelope((GOLDEN / "events" / "key.created.v1.json").read_text())
    with pytest.raises(ValidationError):
        envelope.id = "other"  # type: ignore[misc]


def test_every_subject_is_stored_by_exactly_one_stream() -> None:
    prefixes = {subject.removesuffix(">") for spec in streams() for subject in spec.subjects}
    for event in ALL_EVENTS:
        assert sum(event.SUBJECT.startswith(prefix) for prefix in prefixes) == 1, event.SUBJECT


def test_subjects_are_aggregate_dot_event() -> None:
    for event in ALL_EVENTS:
        assert event.SUBJECT.count(".") == 1
        assert event.SUBJECT.lower() == event.SUBJECT


def test_every_durable_reads_a_declared_stream_and_has_limits() -> None:
    names = {spec.name for spec in streams()}
    for consumer in CONSUMERS:
        assert consumer.stream in names
        assert consumer.max_deliver > 0
        assert consumer.ack_wait_s > 0
        assert consumer.max_ack_pending > 0


def test_committed_asyncapi_matches_the_code() -> None:
    committed = Path(__file__).parents[4] / "docs" / "api" / "asyncapi.json"
    assert committed.read_text() == asyncapi.render(), "run `make docs`"
