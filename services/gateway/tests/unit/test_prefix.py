import json
from itertools import pairwise

import pytest

from cortex_gateway.domain.prefix import BLOCK_BYTES, PrefixMemory, conversation_of

LIMIT = 16 * 1024
SYSTEM = {"role": "system", "content": "You are terse. " * 20}


def dump(body: dict[str, object], *, tight: bool) -> bytes:
    return json.dumps(body, separators=(",", ":") if tight else None).encode()


def turns(first: object, *, tight: bool = True, **fields: object) -> list[bytes]:
    messages: list[dict[str, object]] = [SYSTEM, {"role": "user", "content": first}]
    bodies = [dump({"messages": messages, **fields}, tight=tight)]
    for number in range(4):
        messages += [{"role": "assistant", "content": "An answer } that is long. " * 60}]
        messages += [{"role": "user", "content": f"question {number}"}]
        bodies.append(dump({"messages": messages, **fields}, tight=tight))
    return bodies


@pytest.mark.parametrize("tight", [True, False])
@pytest.mark.parametrize(
    "first",
    [
        "Why?",
        'a } b ]} "user" {',
        [{"type": "text", "text": "hi"}, {"type": "text", "text": "you"}],
        "long " * 9000,
        "",
    ],
)
def test_every_turn_of_a_conversation_has_the_same_home(first, tight):
    points = {conversation_of(body, LIMIT).point for body in turns(first, tight=tight, model="m", temperature=0.3)}
    assert len(points) == 1


def test_what_comes_before_the_messages_does_not_matter():
    plain, dressed = ({"messages": [{"role": "user", "content": "x"}]} for _ in range(2))
    assert conversation_of(dump({"model": "m", **plain}, tight=True), LIMIT).point == (
        conversation_of(dump({"temperature": 1, "tools": [{"a": "b"}], **dressed}, tight=True), LIMIT).point
    )


def test_other_conversations_with_the_same_system_prompt_have_other_homes():
    points = {conversation_of(turns(f"question {number}")[0], LIMIT).point for number in range(50)}
    assert len(points) == 50


def test_the_blocks_of_a_turn_begin_with_those_of_the_turn_before():
    conversations = [conversation_of(body, LIMIT) for body in turns("Why?", model="m")]
    for before, after in pairwise(conversations):
        assert before.blocks[:-1] == after.blocks[: len(before.blocks) - 1]
        assert len(after.blocks) > len(before.blocks)


def test_blocks_within_the_opening_do_not_count():
    """Conversations that share only their system prompt are strangers."""
    long_system = {"role": "system", "content": "x" * 5 * BLOCK_BYTES}
    bodies = [
        dump({"messages": [long_system, {"role": "user", "content": text}]}, tight=True) for text in ("one", "two")
    ]
    first, second = (conversation_of(body, LIMIT) for body in bodies)
    assert first.point != second.point
    assert not set(first.blocks) & set(second.blocks)


@pytest.mark.parametrize(
    "body", [b"", b"{}", b'{"messages"', b'{"prompt":"abc","max_tokens":3}', b'{"input":[1,2]}', b"\xff" * 99]
)
def test_any_bytes_do(body):
    assert conversation_of(body, LIMIT) == conversation_of(body, LIMIT)


def test_prompts_that_begin_alike_have_one_home():
    bodies = [b'{"prompt":"%b%d"}' % (b"once upon a time " * 100, number) for number in range(3)]
    assert len({conversation_of(body, LIMIT).point for body in bodies}) == 1


def test_only_so_much_of_the_body_is_read():
    huge = dump({"messages": [{"role": "user", "content": "x" * 10_000_000}]}, tight=True)
    assert len(conversation_of(huge, LIMIT).blocks) <= LIMIT // BLOCK_BYTES


def test_the_memory_finds_the_longest_prefix_among_the_living_and_is_bounded():
    memory = PrefixMemory(5)
    memory.remember([1, 2, 3], "a")
    memory.remember([1, 2], "b")
    assert memory.find([1, 2, 3, 4], {"a", "b"}) == "a"
    assert memory.find([1, 2, 3, 4], {"b"}) == "b"
    assert memory.find([1, 2], {"a", "b"}) == "b"
    assert memory.find([7], {"a"}) is None
    memory.remember(range(10, 20), "c")
    assert len(memory) == 5
    assert memory.find([3], {"a"}) is None
