"""What is kept of compiled loops is stale when a source of theirs changes."""

from __future__ import annotations

from pathlib import Path

import pytest
from numba.core.caching import IndexDataCacheFile

from maskvolume.ops.cpu import compiling


@pytest.mark.parametrize("module", ["vectors", "evidence_kernels", "compiling"])
def test_the_digest_is_that_of_all_sources(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before, source_of = compiling.sources_digest(), compiling.source_of
    monkeypatch.setattr(
        compiling, "source_of", lambda name: source_of(name) + "# changed" * name.endswith(f".{module}")
    )
    compiling.sources_digest.cache_clear()
    changed = compiling.sources_digest()
    monkeypatch.undo()
    compiling.sources_digest.cache_clear()
    assert changed != before
    assert compiling.sources_digest() == before


def test_a_loop_that_was_kept_under_another_digest_is_not_taken(tmp_path: Path) -> None:
    IndexDataCacheFile(str(tmp_path), "loop", "one").save("key", "compiled")
    assert IndexDataCacheFile(str(tmp_path), "loop", "one").load("key") == "compiled"
    assert IndexDataCacheFile(str(tmp_path), "loop", "two").load("key") is None


def test_a_loop_is_compiled_once_and_kept_under_the_digest() -> None:
    from maskvolume.ops.cpu import filling_kernels

    loop = filling_kernels.pull.__wrapped__
    cache = compiling._Cache(loop)
    assert cache._cache_file._source_stamp == compiling.sources_digest()
