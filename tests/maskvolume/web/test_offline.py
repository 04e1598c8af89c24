"""An exported folder in one script."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import pytest

from maskvolume.web import offline
from maskvolume.web.offline import write_offline


def read_script(path: Path) -> dict[str, dict[str, str]]:
    """The object that the script assigns: without the last commas it is JSON."""
    text = path.read_text(encoding="utf-8").removeprefix("window.maskvolumeOffline = ").rstrip().removesuffix(";")
    text = re.sub(r",(\s*})", r"\1", text)
    return json.loads(text.replace("{\nmodules:", '{"modules":').replace("\nfiles:", '"files":'))


def test_modules_and_files_are_what_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offline, "PIECE", 3 * 7)  # several pieces, which join without padding between them
    folder = tmp_path / "clip"
    (folder / "player").mkdir(parents=True)
    source = 'const a = "</script>" + `é`;\n'
    (folder / "player/main.js").write_text(source, encoding="utf-8")
    data = bytes(range(256)) * 3
    (folder / "dynamic.mp4").write_bytes(data)
    (folder / "manifest.json").write_text("{}")
    for name in ("index.html", "player/player.css"):
        (folder / name).write_text("")
    out = folder / "offline.js"
    for _ in range(2):  # the second time the script is there
        write_offline(folder, out)
        script = read_script(out)
        assert script["modules"] == {"player/main.js": source}
        assert {name: base64.b64decode(text) for name, text in script["files"].items()} == {
            "dynamic.mp4": data,
            "manifest.json": b"{}",
        }
    assert "</script>" not in out.read_text(encoding="utf-8")
