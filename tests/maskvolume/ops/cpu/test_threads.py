"""Threads share items of work: each is done once, whoever does it, and an error is the caller's."""

from __future__ import annotations

import pytest
import torch

from maskvolume.ops.cpu.threads import share


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("items", [range(0), range(1), range(0, 50, 7)])
def test_each_item_is_done_once(items: range, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    done: list[int] = []
    share(done.append, items)
    assert sorted(done) == list(items)


@pytest.mark.parametrize("threads", [1, 3])
def test_an_error_reaches_the_caller(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)

    def work(item: int) -> None:
        if item == 2:
            raise RuntimeError("two")

    with pytest.raises(RuntimeError, match="two"):
        share(work, range(4))
