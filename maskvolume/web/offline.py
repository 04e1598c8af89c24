"""Packs an exported folder into one classic script, for pages opened without a server.

A page opened by a double click may load scripts, but neither modules nor images and videos for WebGL.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path

from maskvolume.io.files import atomic_path

PIECE = 3 << 20  # bytes of a file encoded at once; a multiple of 3, so that base64 pieces can be joined


def write_offline(folder: Path, out: Path) -> None:
    """Write ``window.maskvolumeOffline = {modules, files}``: sources by name, files by name in base64.

    Args:
        folder: an exported folder, with its manifest.
        out: the script to write.
    """
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path != out)
    modules = [path for path in paths if path.suffix == ".js"]
    files = [path for path in paths if path.suffix not in (".js", ".html", ".css")]
    with atomic_path(out) as temporary, temporary.open("w", encoding="utf-8") as script:
        script.write("window.maskvolumeOffline = {\nmodules: {\n")
        for path in modules:
            source = json.dumps(path.read_text(encoding="utf-8")).replace("</", "<\\/")
            script.write(f"{json.dumps(path.relative_to(folder).as_posix())}: {source},\n")
        script.write("},\nfiles: {\n")
        for path in files:
            script.write(f'{json.dumps(path.relative_to(folder).as_posix())}: "')
            with path.open("rb") as stream:
                while piece := stream.read(PIECE):
                    script.write(base64.b64encode(piece).decode("ascii"))
            script.write('",\n')
        script.write("},\n};\n")
