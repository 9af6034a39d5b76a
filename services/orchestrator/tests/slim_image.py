"""llama-server and what it is linked with as an image of one layer, so that it is pulled and loaded in a second."""

import gzip
import io
import re
import subprocess
import tarfile
from pathlib import Path

ENTRYPOINT = ["/app/llama-server"]
ENVIRONMENT = ["HOME=/tmp", "LLAMA_ARG_HOST=0.0.0.0", "PATH=/app"]
_LIBRARY = re.compile(r"^\s*(?:\S+ => )?(/\S+) \(0x", re.MULTILINE)


def llama_layer(binary: Path) -> bytes:
    """A file system as a tar archive, packed: the binary beside its own libraries, the system's where they belong."""
    listed = subprocess.run(["ldd", str(binary)], capture_output=True, text=True, check=True).stdout
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for folder in ("tmp", "models"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o777
            archive.addfile(entry)
        for name in [str(binary), *_LIBRARY.findall(listed)]:
            path = Path(name)
            target = Path("app") / path.name if path.parent == binary.parent else Path(name[1:])
            entry = tarfile.TarInfo(str(target))
            entry.size, entry.mode = path.stat().st_size, 0o755
            with path.open("rb") as content:
                archive.addfile(entry, content)
    return gzip.compress(stream.getvalue(), compresslevel=1)
