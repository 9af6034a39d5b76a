"""Coverage-guided fuzzing of the reader with atheris, which is no dependency of the project:

    pip install atheris
    python services/gguf-inspector/tests/fuzz/fuzz_atheris.py CORPUS_FOLDER -max_total_time=600 -timeout=2 -rss_limit_mb=2048

Needs the project's packages on the path; the seeds themselves take 1.4 GB to make. Anything but a typed refusal or a
description ends it with the input that did it.
"""

import sys
from pathlib import Path

import atheris  # pyright: ignore[reportMissingImports]

with atheris.instrument_imports(include=["cortex_gguf_inspector"]):
    from cortex_gguf_inspector.describe import describe_any
    from cortex_gguf_inspector.errors import GgufError, GgufErrorCode
    from cortex_gguf_inspector.reader import read_header

from cortex_testing.gguf import deepseek2, gemma3, gpt_oss, jamba, llama


class Bytes:
    """A whole file in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)

    def read_at(self, offset: int, length: int) -> bytes:
        return self._data[offset : offset + length]


def one_input(data: bytes) -> None:
    """Read and describe; a typed refusal is a right answer."""
    try:
        header = read_header(Bytes(data))
        describe_any("fuzzed.gguf", [header])
    except GgufError as error:
        if error.code not in set(GgufErrorCode) or not error.message:
            raise RuntimeError(f"an untyped refusal: {error!r}") from error


def main() -> None:
    folder = next((Path(word) for word in sys.argv[1:] if not word.startswith("-")), None)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        models = (llama(vocabulary=40), gpt_oss(2, 4, "1B", vocabulary=40), gemma3(layers=2, vocabulary=40))
        for number, builder in enumerate((*models, deepseek2(layers=2, vocabulary=40), jamba(vocabulary=40, width=64))):
            (folder / f"seed-{number}").write_bytes(builder.bytes()[:65536])
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
