"""Reads what the estimator needs: headers of a model and its companions, config.json and sizes of safetensors.

Everything is resolved below the models root by the same code as inspections, so links out of it are refused. Blocks.
"""

import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, cast

from cortex_contracts.engines import LlamaCppOptions
from cortex_gguf_inspector.errors import GgufError, GgufErrorCode
from cortex_gguf_inspector.estimate.architecture import Facts, facts_of
from cortex_gguf_inspector.estimate.llamacpp import Companions
from cortex_gguf_inspector.estimate.vllm import VllmFacts, vllm_facts
from cortex_gguf_inspector.inspect import read_set
from cortex_gguf_inspector.limits import MIB, Limits
from cortex_gguf_inspector.paths import ModelsRoot, parse_client_path
from cortex_gguf_inspector.splits import choose_model

MAX_CONFIG_BYTES = 4 * MIB
MAX_SAFETENSORS_FILES = 1_024


class Sources:
    """Models below one root."""

    def __init__(self, root: Path, limits: Limits | None = None) -> None:
        self._models = ModelsRoot(root)
        self._limits = limits or Limits()

    def gguf(self, path: str) -> tuple[str, Facts]:
        """The file to serve and its facts; `path` names a file, part 1 of a set, or a folder with one model.

        Raises:
            GgufError: as an inspection.
        """
        asked = parse_client_path(path)
        names = self._models.names(asked, self._limits.folder_entries) if self._models.is_folder(asked) else None
        file = asked if names is None else asked / choose_model(names)
        return str(file), facts_of(read_set(self._models, file, self._limits))

    def companions(self, options: LlamaCppOptions) -> Companions:
        """Draft model, projector and adapters that the options name.

        Raises:
            GgufError: one of them is not there or no GGUF file.
        """
        draft = self.gguf(options.draft_model_path)[1] if options.draft_model_path else None
        projector = self._size(options.mmproj_path) if options.mmproj_path else 0
        return Companions(draft, projector, sum(self._size(adapter.path) for adapter in options.lora_adapters))

    def is_hugging_face(self, path: str) -> bool:
        """Whether a path is a folder with a config.json."""
        asked = parse_client_path(path)
        return self._models.is_folder(asked) and self._models.exists(asked / "config.json")

    def hugging_face(self, path: str) -> VllmFacts:
        """Facts of a folder with config.json and safetensors.

        Raises:
            GgufError: there is none, or it cannot be read.
        """
        asked = parse_client_path(path)
        config = self._json(asked / "config.json")
        names = [
            name for name in self._models.names(asked, self._limits.folder_entries) if name.endswith(".safetensors")
        ]
        if len(names) > MAX_SAFETENSORS_FILES:
            raise GgufError(
                GgufErrorCode.LIMIT_EXCEEDED, f"{asked} holds more than {MAX_SAFETENSORS_FILES} safetensors"
            )
        return vllm_facts(config, sum(self._tensor_bytes(asked / name) for name in names))

    def _json(self, path: PurePosixPath) -> Mapping[str, Any]:
        with self._models.open_file(path) as descriptor:
            raw = os.pread(descriptor, MAX_CONFIG_BYTES + 1, 0)
        if len(raw) > MAX_CONFIG_BYTES:
            raise GgufError(GgufErrorCode.LIMIT_EXCEEDED, f"{path} is larger than {MAX_CONFIG_BYTES} bytes")
        try:
            value = json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise GgufError(GgufErrorCode.CORRUPT, f"{path} is not valid JSON") from error
        if not isinstance(value, dict):
            raise GgufError(GgufErrorCode.CORRUPT, f"{path} is not a JSON object")
        return cast("Mapping[str, Any]", value)

    def _tensor_bytes(self, path: PurePosixPath) -> int:
        """Size of the data of a safetensors file: the file without its header."""
        with self._models.open_file(path) as descriptor:
            size = os.fstat(descriptor).st_size
            head = os.pread(descriptor, 8, 0)
        header = struct.unpack("<Q", head)[0] if len(head) == len(struct.pack("<Q", 0)) else size
        return max(0, size - 8 - header)

    def _size(self, path: str) -> int:
        with self._models.open_file(parse_client_path(path)) as descriptor:
            return os.fstat(descriptor).st_size
