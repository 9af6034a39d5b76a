"""Says what a file is that is not GGUF: most wrong files are one of a few well-known mistakes."""

from cortex_gguf_inspector.errors import GgufError, GgufErrorCode

MAGIC = b"GGUF"
SNIFF_BYTES = 512
LEGACY_MAGICS = (b"ggml", b"lmgg", b"fmgg", b"tjgg", b"algg", b"GGML", b"ggjt", b"ggla", b"ggmf")


def check_magic(head: bytes, size: int) -> None:
    """Refuse a file whose first bytes (up to SNIFF_BYTES) are not those of GGUF.

    Raises:
        GgufError: `gguf_truncated` for an empty or cut-off file, `not_gguf` otherwise; the text says what it is.
    """
    if head.startswith(MAGIC):
        return
    if size == 0:
        raise GgufError(GgufErrorCode.TRUNCATED, "the file is empty: the download did not finish", offset=0)
    if MAGIC.startswith(head):
        raise GgufError(
            GgufErrorCode.TRUNCATED, f"the file has only {size} bytes: the download did not finish", offset=0
        )
    raise GgufError(GgufErrorCode.NOT_GGUF, f"not a GGUF file: {_what_it_is(head)}", offset=0)


def _what_it_is(head: bytes) -> str:
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith(b"version https://git-lfs"):
        return (
            "it is a Git LFS pointer, the model itself was not fetched; run 'git lfs pull' or download the file again"
        )
    if text.startswith((b"<!doctype html", b"<html", b"<?xml")):
        return "it is a web page, probably a login or error page saved in place of the model; download the file again"
    if text.startswith((b'{"error"', b"invalid username or password", b"entry not found")):
        return "it is the error message of a download; download the file again, with access to the repository"
    if head[:4] in LEGACY_MAGICS:
        return "it is in the legacy GGML format from before GGUF; get a GGUF file of the model"
    if head[8:10] == b'{"' and int.from_bytes(head[:8], "little") < 1 << 32:
        return "it looks like safetensors, which vLLM serves; llama.cpp needs a GGUF conversion"
    if head.startswith((b"PK\x03\x04", b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh", b"7z\xbc\xaf")):
        return "it is a compressed archive or a PyTorch checkpoint; unpack or convert it first"
    return f"it starts with {ascii(head[:4])[1:]} instead of 'GGUF'"
