"""Reads a Hugging Face folder: config.json, the safetensors index, and the header of every shard. All of it is hostile."""

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, cast

from cortex_gguf_inspector.errors import GgufError, GgufErrorCode
from cortex_gguf_inspector.library.units import Unit
from cortex_gguf_inspector.limits import MIB
from cortex_gguf_inspector.paths import ModelsRoot
from cortex_gguf_inspector.window import FileSource

MAX_JSON_BYTES = 32 * MIB
MAX_FOLDER_JSON_BYTES = 128 * MIB
INDEX_SUFFIX = ".safetensors.index.json"


@dataclass(slots=True)
class HubFolder:
    """What a safetensors folder holds; `problems` and `missing` say why it is not whole."""

    config: Mapping[str, Any] = field(default_factory=dict[str, Any])
    is_adapter: bool = False
    shards: int = 0
    tensors: int = 0
    parameters: int = 0
    dtypes: Counter[str] = field(default_factory=Counter[str])
    missing: list[str] = field(default_factory=list[str])
    problems: list[str] = field(default_factory=list[str])

    def integer(self, *keys: str) -> int | None:
        """The first of some keys that config.json, or its text part, gives as a number."""
        told = self.config.get("text_config")
        nested = cast("Mapping[str, object]", told) if isinstance(told, dict) else None
        for source in (self.config, nested or {}):
            for key in keys:
                value: object = source.get(key)
                if isinstance(value, int) and not isinstance(value, bool):
                    return value
        return None

    @property
    def architectures(self) -> list[str]:
        """Class names, as far as they are names."""
        told = self.config.get("architectures")
        names = cast("list[object]", told) if isinstance(told, list) else []
        return [name[:128] for name in names if isinstance(name, str) and name.isprintable()]

    @property
    def quantization(self) -> str | None:
        """The method that config.json names, else the type that most parameters have."""
        told = self.config.get("quantization_config")
        if isinstance(told, dict) and isinstance(method := cast("dict[str, Any]", told).get("quant_method"), str):
            return method[:32] if method.isprintable() else None
        return self.dtypes.most_common(1)[0][0] if self.dtypes else None


def read_folder(models: ModelsRoot, unit: Unit) -> HubFolder:
    """Read everything but the weights. Raises GgufError for what cannot be read at all."""
    reader = _Reader(models, unit)
    reader.read()
    return reader.folder


class _Reader:
    def __init__(self, models: ModelsRoot, unit: Unit) -> None:
        self._models = models
        self._files = {file.path.name: file for file in unit.files}
        self._left = MAX_FOLDER_JSON_BYTES
        self.folder = HubFolder()

    def read(self) -> None:
        names = set(self._files)
        self.folder.is_adapter = "adapter_config.json" in names or any("adapter_model" in name for name in names)
        if "config.json" in names:
            self.folder.config = self._json("config.json")
        for name in sorted(names):
            if name.endswith(".safetensors"):
                self.folder.shards += 1
                self._shard(name)
        for name in sorted(names):
            if name.endswith(INDEX_SUFFIX):
                self._index(name)

    def _shard(self, name: str) -> None:
        with self._models.open_file(self._files[name].path) as descriptor:
            source = FileSource(descriptor)
            length = int.from_bytes(source.read_at(0, 8), "little")
            if source.size < 8 or length > source.size - 8:
                self.folder.problems.append(f"{name} is cut off inside its header")
                return
            header = self._parsed(name, source.read_at(8, self._allowed(name, length)))
        data = source.size - 8 - length
        for tensor, told in header.items():
            if tensor == "__metadata__" or not isinstance(told, dict):
                continue
            end = self._tensor(cast("dict[str, Any]", told))
            if end is None or end > data:
                what = "is damaged" if end is None else f"ends {end - data} bytes behind the end of the file"
                self.folder.problems.append(f"{name}: tensor {tensor[:64]!a} {what}")
                return

    def _tensor(self, told: Mapping[str, Any]) -> int | None:
        """Counts a tensor; returns the offset behind its data, None for nonsense."""
        match told:
            case {"dtype": str(dtype), "shape": [*sizes], "data_offsets": [int(start), int(end)]}:
                pass
            case _:
                return None
        if len(sizes) > 8 or not all(isinstance(size, int) and 0 <= size < 1 << 48 for size in sizes):
            return None
        if not 0 <= start <= end or len(dtype) > 16 or not dtype.isprintable():
            return None
        elements = math.prod(cast("list[int]", sizes))
        self.folder.tensors += 1
        self.folder.parameters += elements
        self.folder.dtypes[dtype] += elements
        return end

    def _index(self, name: str) -> None:
        weights = self._json(name).get("weight_map")
        if not isinstance(weights, dict):
            self.folder.problems.append(f"{name} has no weight_map")
            return
        wanted = {value for value in cast("dict[str, object]", weights).values() if isinstance(value, str)}
        self.folder.missing.extend(sorted(wanted - set(self._files)))
        if not self.folder.missing and self.folder.tensors < len(cast("dict[str, object]", weights)):
            self.folder.problems.append(f"the shards hold fewer tensors than {name} lists")

    def _json(self, name: str) -> Mapping[str, Any]:
        with self._models.open_file(self._files[name].path) as descriptor:
            source = FileSource(descriptor)
            return self._parsed(name, source.read_at(0, self._allowed(name, source.size)))

    def _allowed(self, name: str, length: int) -> int:
        self._left -= length
        if length > MAX_JSON_BYTES or self._left < 0:
            raise GgufError(GgufErrorCode.LIMIT_EXCEEDED, f"{name} has more JSON than {MAX_JSON_BYTES} bytes")
        return length

    def _parsed(self, name: str, raw: bytes) -> Mapping[str, Any]:
        try:
            told: object = json.loads(raw)
        except (ValueError, RecursionError):
            self.folder.problems.append(f"{name} is no valid JSON: the download did not finish")
            return {}
        return cast("dict[str, Any]", told) if isinstance(told, dict) else {}


def folder_name(path: PurePosixPath) -> str | None:
    """A name for people: the folder's, or that of the repository in a Hugging Face cache."""
    parts = path.parts
    if len(parts) >= 3 and parts[-2] == "snapshots" and parts[-3].startswith("models--"):
        return parts[-3].removeprefix("models--").replace("--", "/")
    return parts[-1] if parts else None
