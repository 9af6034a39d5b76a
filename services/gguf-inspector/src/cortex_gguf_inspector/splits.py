"""Split sets: `<prefix>-00001-of-00003.gguf`. Pure: names and headers in, refusals out."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cortex_gguf_inspector.errors import GgufError, GgufErrorCode
from cortex_gguf_inspector.header import Header

SPLIT_NAME = re.compile(r"(?P<prefix>.+)-(?P<part>\d{5})-of-(?P<count>\d{5})\.gguf")
SHOWN_NAMES = 8


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


def check_parts(split: SplitName, headers: Sequence[Header]) -> None:
    """Check that all parts belong to one model and hold all of its tensors.

    Raises:
        GgufError: parts of different models are mixed, or tensors are missing or repeated.
    """
    for number, header in enumerate(headers, start=1):
        said = ((header.integer("split.no") or 0) + 1, header.integer("split.count"))
        if said != (number, split.count):
            message = (
                f"{split.name_of(number)} says it is part {said[0]} of {said[1] or 1}: parts of two sets are mixed"
            )
            raise GgufError(GgufErrorCode.CORRUPT, message)
    names: set[str] = set()
    for number, header in enumerate(headers, start=1):
        repeated = names.intersection(tensor.name for tensor in header.tensors)
        if repeated:
            message = f"{split.name_of(number)} repeats tensor {min(repeated)!a}: parts of two models are mixed"
            raise GgufError(GgufErrorCode.CORRUPT, message)
        names.update(tensor.name for tensor in header.tensors)
    expected = headers[0].integer("split.tensors.count")
    if expected is not None and expected != len(names):
        message = f"the parts hold {len(names)} tensors, but part 1 announces {expected}: parts of two models are mixed"
        raise GgufError(GgufErrorCode.CORRUPT, message)


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
