"""Names and headers of split sets, as tables."""

from types import MappingProxyType

import pytest

from cortex_gguf_inspector.header import Header, TensorInfo
from cortex_gguf_inspector.splits import SplitName, compare_parts, order_join_parts, parse_join_name, parse_split_name


def part(number: int, count: int, tensors: list[str], **metadata: int | str) -> Header:
    told = {"split.no": number - 1, "split.count": count, **{key.replace("__", "."): v for key, v in metadata.items()}}
    infos = tuple(TensorInfo(name, (1,), 0, 0, 1, 4) for name in tensors)
    return Header(3, MappingProxyType(told), infos, 32, 100, 128, 1000, b"x" * 32)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("m-00001-of-00003.gguf", ("m", 1, 3)),
        ("a-00001-of-00002-00002-of-00009.gguf", ("a-00001-of-00002", 2, 9)),
        ("m-00004-of-00003.gguf", None),
        ("m-00000-of-00003.gguf", None),
        ("m-1-of-3.gguf", None),
        ("m-00001-of-00003.GGUF", None),
        ("m.gguf", None),
    ],
)
def test_split_names(name, expected):
    split = parse_split_name(name)
    assert (split and (split.prefix, split.part, split.count)) == expected


@pytest.mark.parametrize(
    ("names", "ordered", "missing"),
    [
        (["m.gguf.part2of2", "m.gguf.part1of2"], ["m.gguf.part1of2", "m.gguf.part2of2"], []),
        (["m.gguf.part1of3", "m.gguf.part3of3"], ["m.gguf.part1of3", "m.gguf.part3of3"], [1]),
        (["m.gguf.part1of3"], ["m.gguf.part1of3"], [1, 2]),
        (["m.gguf.partab", "m.gguf.partaa"], ["m.gguf.partaa", "m.gguf.partab"], []),
        (["m.gguf.partac", "m.gguf.partaa"], ["m.gguf.partaa", "m.gguf.partac"], [1]),
        (["m.gguf.partb"], ["m.gguf.partb"], [0]),
        (["m.gguf-split-b", "m.gguf-split-a"], ["m.gguf-split-a", "m.gguf-split-b"], []),
        (["m.gguf.001", "m.gguf.002"], ["m.gguf.001", "m.gguf.002"], []),
        (["m.gguf.000", "m.gguf.002"], ["m.gguf.000", "m.gguf.002"], [1]),
        (["m.gguf.part10", "m.gguf.part9"], ["m.gguf.part9", "m.gguf.part10"], list(range(1, 9))),
    ],
)
def test_pieces_are_ordered_by_number_and_gaps_are_seen(names, ordered, missing):
    assert order_join_parts(names) == (ordered, missing)


@pytest.mark.parametrize("name", ["m.gguf", "m.gguf.partial", "m.gguf.part", "m.gguf.bak", "part1of2", "m.gguf.aria2"])
def test_what_is_no_piece(name):
    assert parse_join_name(name) is None


SPLIT = SplitName("m", 1, 2)


@pytest.mark.parametrize(
    ("headers", "foreign", "problem"),
    [
        ({1: part(1, 2, ["a"], split__tensors__count=2), 2: part(2, 2, ["b"])}, [], None),
        ({1: part(1, 2, ["a"]), 2: part(2, 3, ["b"])}, ["m-00002-of-00002.gguf"], "says it is part 2 of 3"),
        ({1: part(1, 2, ["a"]), 2: part(1, 2, ["b"])}, ["m-00002-of-00002.gguf"], "says it is part 1 of 2"),
        ({1: part(1, 2, ["a"]), 2: part(2, 0, ["b"])}, ["m-00002-of-00002.gguf"], "says it is part 2 of 1"),
        ({1: part(1, 2, ["a"]), 2: part(2, 65535, ["b"])}, ["m-00002-of-00002.gguf"], "of 65535"),
        ({1: part(1, 2, ["a"]), 2: part(2, 2, ["a"])}, ["m-00002-of-00002.gguf"], "repeats tensor 'a' of part 1"),
        (
            {1: part(1, 2, ["a"], split__tensors__count=2), 2: part(2, 2, ["b"], split__tensors__count=9)},
            ["m-00002-of-00002.gguf"],
            "split.tensors.count",
        ),
        (
            {1: part(1, 2, ["a"], general__architecture="llama"), 2: part(2, 2, ["b"], general__architecture="qwen2")},
            ["m-00002-of-00002.gguf"],
            "general.architecture 'qwen2'",
        ),
        (
            {1: part(1, 2, ["a"], split__tensors__count=5), 2: part(2, 2, ["b"])},
            [],
            "hold 2 tensors, but part 1 announces 5",
        ),
        ({2: part(2, 2, ["b"])}, [], None),
    ],
)
def test_foreign_parts_are_named(headers, foreign, problem):
    report = compare_parts(SPLIT, headers)
    assert list(report.foreign) == foreign
    assert report.problem is None if problem is None else problem in (report.problem or "")
