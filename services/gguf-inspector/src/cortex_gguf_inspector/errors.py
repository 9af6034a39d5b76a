"""Refusals of the inspector. The codes are stable: clients and tests rely on them."""

import errno
import os
from enum import StrEnum

from cortex_kit.errors import DomainError


class GgufErrorCode(StrEnum):
    """Why a path or a file was refused."""

    INVALID_PATH = "invalid_path"
    PATH_OUTSIDE_MODELS_ROOT = "path_outside_models_root"
    FILE_NOT_FOUND = "file_not_found"
    FILE_UNREADABLE = "file_unreadable"
    NOT_A_REGULAR_FILE = "not_a_regular_file"
    NO_GGUF_IN_FOLDER = "no_gguf_in_folder"
    AMBIGUOUS_FOLDER = "ambiguous_folder"
    NOT_GGUF = "not_gguf"
    NOT_A_MODEL = "gguf_not_a_model"
    UNSUPPORTED_VERSION = "gguf_unsupported_version"
    BIG_ENDIAN = "gguf_big_endian"
    CORRUPT = "gguf_corrupt"
    TRUNCATED = "gguf_truncated"
    LIMIT_EXCEEDED = "gguf_limit_exceeded"
    SPLIT_INCOMPLETE = "split_incomplete"
    SPLIT_NOT_FIRST_PART = "split_not_first_part"
    SPLIT_CONCATENATED = "split_concatenated"
    NOT_SPLIT = "not_a_split_set"
    TARGET_EXISTS = "merge_target_exists"
    MERGE_RUNNING = "merge_running"
    MERGE_STOPPED = "merge_stopped"
    MERGE_MISMATCH = "merge_mismatch"
    DISK_FULL = "disk_full"
    WRITE_FAILED = "write_failed"
    CHECKSUM_MISMATCH = "checksum_mismatch"
    MODELS_DIR_UNAVAILABLE = "models_dir_unavailable"
    TIMEOUT = "inspect_timeout"


class GgufError(DomainError):
    """A refused path or file: stable `code`, a sentence for the user, and the offset in the file where reading stopped."""

    def __init__(self, code: GgufErrorCode, message: str, *, offset: int | None = None) -> None:
        details: dict[str, object] = {} if offset is None else {"offset": offset}
        super().__init__(code.value, message, status=422, details=details)
        self.reason = code
        self.offset = offset

    def about_part(self, part: str) -> "GgufError":
        """The same refusal, naming the file of a split set it is about."""
        return GgufError(self.reason, f"{part}: {self}", offset=self.offset)


def unreadable(name: str, error: OSError) -> GgufError:
    """The refusal of a file that the operating system does not give us."""
    return GgufError(GgufErrorCode.FILE_UNREADABLE, f"{name} cannot be read: {os.strerror(error.errno or errno.EIO)}")
