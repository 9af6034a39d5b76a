"""Split sets: `<prefix>-00001-of-00003.gguf`. Pure: names and headers in, refusals out."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cortex_gguf_inspector.errors import GgufError, GgufErrorCode
from cortex_gguf_inspector.header import Header

SPLIT_NAME = re.compile(r"(?P<prefix>.+)-(?P<part>\d{5})-of-(?P<count>\d{5})\.gguf")
SHOWN_NAMES = 8
MAX_JOIN_PARTS = 10_000


@dataclass(frozen=True, slots=True)
class SplitName:
    """A file name of a split set; parts count from 1."""

    prefix: str
    part: int
    count: int

    def name_of(self, part: int) -> str:
        """File name of a part of the same set, as the engine forms it."""
        return f"{self.prefix}-{part:05d}-of-{self.count:05d}.gguf"


def parse_split_name(name: str) -> SplitName | None:
    """The set a file name belongs to; None when it is not the name of a part."""
    match = SPLIT_NAME.fullmatch(name)
    if match is None:
        return None
    split = SplitName(match["prefix"], int(match["part"]), int(match["count"]))
    return split if 1 <= split.part <= split.count else None


def split_of(name: str, header: Header, max_parts: int) -> SplitName | None:
    """Which split set the given file opens; None for a model in one file.

    Raises:
        GgufError: a later part, a name the engine cannot find the siblings by, or too many parts.
    """
    count = header.integer("split.count") or 0
    if count <= 1:
        return None
    part = (header.integer("split.no") or 0) + 1
    split = parse_split_name(name)
    if part != 1:
        first = f"give {split.name_of(1)}" if split is not None else "give part 1"
        message = f"{name} is part {part} of {count} of a split model: {first}, the engine finds the other parts itself"
        raise GgufError(GgufErrorCode.SPLIT_NOT_FIRST_PART, message)
    if split is None or split.part != 1 or split.count != count:
        message = (
            f"{name} is part 1 of {count} by its content, but its name does not end in '-00001-of-{count:05d}.gguf'. "
            "If the file was renamed, give all parts their names back; if the parts were joined with 'cat', "
            "that gives no valid file: put the original parts into one folder and give part 1"
        )
        raise GgufError(GgufErrorCode.SPLIT_INCOMPLETE, message)
    if count > max_parts:
        message = f"the model is split into {count} parts; the limit is {max_parts}"
        raise GgufError(GgufErrorCode.LIMIT_EXCEEDED, message)
    return split


def missing_parts(missing: Sequence[str], count: int) -> GgufError:
    """The refusal of a set of `count` parts of which some are not there."""
    names = ", ".join(missing[:SHOWN_NAMES]) + (", ..." if len(missing) > SHOWN_NAMES else "")
    message = f"{len(missing)} of {count} parts are missing: {names}. Put all parts into the same folder"
    return GgufError(GgufErrorCode.SPLIT_INCOMPLETE, message)


@dataclass(frozen=True, slots=True)
class SetReport:
    """What the headers of a set's parts say about it; file names of the set as keys."""

    foreign: Mapping[str, str]
    tensors: int
    tensors_expected: int | None

    @property
    def problem(self) -> str | None:
        """The first reason why the parts are not one whole model."""
        for name, why in self.foreign.items():
            return f"{name} {why}"
        if self.tensors_expected is not None and self.tensors_expected != self.tensors:
            return f"the parts hold {self.tensors} tensors, but part 1 announces {self.tensors_expected}"
        return None


def compare_parts(split: SplitName, headers: Mapping[int, Header]) -> SetReport:
    """Compare the parts of a set (part number from 1 -> header; some may be missing) with each other."""
    foreign: dict[str, str] = {}
    names: dict[str, int] = {}
    reference = headers.get(1)
    announced = None if reference is None else reference.integer("split.tensors.count")
    for number, header in sorted(headers.items()):
        why = _foreign(split, number, header, reference)
        repeated = names.keys() & {tensor.name for tensor in header.tensors}
        if why is None and repeated:
            first = min(repeated)
            why = f"repeats tensor {first!a} of part {names[first]}"
        if why is not None:
            foreign[split.name_of(number)] = why
            continue
        names.update((tensor.name, number) for tensor in header.tensors)
    return SetReport(foreign, len(names), announced)


def _foreign(split: SplitName, number: int, header: Header, reference: Header | None) -> str | None:
    said = ((header.integer("split.no") or 0) + 1, header.integer("split.count"))
    if said != (number, split.count):
        return f"says it is part {said[0]} of {said[1] or 1}"
    if reference is None or reference is header:
        return None
    for key in ("split.tensors.count", "general.architecture", "general.name"):
        ours, theirs = reference.metadata.get(key), header.metadata.get(key)
        if theirs is not None and theirs != ours:
            return f"has {key} {str(theirs)[:64]!a}, part 1 has {str(ours)[:64]!a}"
    return None


def check_parts(split: SplitName, headers: Sequence[Header]) -> None:
    """Check that all parts belong to one model and hold all of its tensors.

    Raises:
        GgufError: parts of different models are mixed, or tensors are missing or repeated.
    """
    problem = compare_parts(split, dict(enumerate(headers, start=1))).problem
    if problem is not None:
        raise GgufError(GgufErrorCode.CORRUPT, f"{problem}: parts of two models are mixed")


@dataclass(frozen=True, slots=True)
class JoinName:
    """A file name of a model that was cut into pieces of bytes, e.g. `model.gguf.part1of2`; parts count from 0."""

    target: str
    """Name of the whole file."""
    style: str
    """What parts of one set have in common beside the target."""
    part: int
    count: int | None


JOIN_NAMES = (
    re.compile(r"(?P<target>.+\.gguf)\.part(?P<part>\d{1,4})of(?P<count>\d{1,4})", re.IGNORECASE),
    re.compile(r"(?P<target>.+\.gguf)\.part-?(?P<letters>[a-z]{1,2})"),
    re.compile(r"(?P<target>.+\.gguf)-split-(?P<letters>[a-z]{1,2})"),
    re.compile(r"(?P<target>.+\.gguf)\.part[-_]?(?P<part>\d{1,5})"),
    re.compile(r"(?P<target>.+\.gguf)\.(?P<part>\d{3})"),
)


def parse_join_name(name: str) -> JoinName | None:
    """The byte-wise set a file name belongs to; None when it is not the name of such a part."""
    for style, pattern in enumerate(JOIN_NAMES):
        match = pattern.fullmatch(name)
        if match is None:
            continue
        fields = match.groupdict()
        count = int(fields["count"]) if fields.get("count") else None
        if letters := fields.get("letters"):
            number = 0
            for letter in letters:
                number = number * 26 + ord(letter) - ord("a")
            return JoinName(match["target"], f"{style}:{len(letters)}", number, None)
        return JoinName(match["target"], f"{style}:{count}", int(match["part"]) - (1 if count else 0), count)
    return None


def order_join_parts(names: Iterable[str]) -> tuple[list[str], list[int]]:
    """The parts of one byte-wise set in order, and the numbers (from 0) of those that are missing between or after them.

    A last part that is missing without its number being known shows in the header: the tensors end past the file.
    """
    numbered = {parsed.part: (name, parsed) for name in names if (parsed := parse_join_name(name)) is not None}
    first = 1 if 0 not in numbered and all(parsed.count is None for _, parsed in numbered.values()) else 0
    if any(parsed.style.startswith(("1:", "2:")) for _, parsed in numbered.values()):
        first = 0
    counts = [parsed.count for _, parsed in numbered.values() if parsed.count is not None]
    last = max([*numbered, *(count - 1 for count in counts)], default=-1)
    missing = [number for number in range(first, min(last, first + MAX_JOIN_PARTS) + 1) if number not in numbered]
    return [numbered[number][0] for number in sorted(numbered)], missing


def choose_model(names: Iterable[str]) -> str:
    """The one model of a folder, by the names in it: a single `.gguf` file or part 1 of a complete split set.

    Projectors (`mmproj*`) belong to a model and hidden files are leftovers of other systems: neither is a model.

    Raises:
        GgufError: `no_gguf_in_folder`, `ambiguous_folder` or `split_incomplete`; the text lists the candidates.
    """
    files = {name for name in names if name.lower().endswith(".gguf") and not name.startswith(".")}
    models = {name for name in files if not name.lower().startswith("mmproj")} or files
    candidates: dict[str, SplitName | None] = {}
    for name in models:
        split = parse_split_name(name)
        candidates[split.name_of(1) if split else name] = split
    if not candidates:
        raise GgufError(GgufErrorCode.NO_GGUF_IN_FOLDER, "the folder holds no .gguf file")
    if len(candidates) > 1:
        shown = ", ".join(sorted(candidates)[:SHOWN_NAMES]) + (", ..." if len(candidates) > SHOWN_NAMES else "")
        message = f"the folder holds {len(candidates)} models, give one of them: {shown}"
        raise GgufError(GgufErrorCode.AMBIGUOUS_FOLDER, message)
    ((name, split),) = candidates.items()
    if split is not None:
        missing = [part for n in range(1, split.count + 1) if (part := split.name_of(n)) not in files]
        if missing:
            raise missing_parts(missing, split.count)
    return name
