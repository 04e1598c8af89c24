"""The browser that the tests of the player use does what the player needs: WebGL2, and videos in their own colours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskvolume.io.video import VideoWriter

COLORS = np.array([(200, 30, 40), (20, 180, 60), (30, 60, 210), (128, 128, 128)], np.uint8)
SIZE = (64, 96)
FPS = 10
TOLERANCE = 3  # levels: 8-bit YUV with half of the colours' resolution
BODY = "<video muted src=video.mp4></video>"

FEATURES = """() => {
    const gl = document.createElement("canvas").getContext("webgl2");
    return {
        floats: gl?.getExtension("EXT_color_buffer_float") !== null,
        texture: gl?.getParameter(gl.MAX_TEXTURE_SIZE),
    };
}"""

# The colours in the middle of the quarters of a frame, as WebGL has them.
QUARTERS = """async (seconds) => {
    const video = document.querySelector("video");
    const happens = (name) => new Promise((resolve) => video.addEventListener(name, resolve, { once: true }));
    if (video.readyState < HTMLMediaElement.HAVE_CURRENT_DATA) await happens("loadeddata");
    const seeked = happens("seeked");
    video.currentTime = seconds;
    await seeked;
    const gl = document.createElement("canvas").getContext("webgl2");
    const texture = gl.createTexture();
    gl.bindTexture(gl.TEXTURE_2D, texture);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, video);
    gl.bindFramebuffer(gl.FRAMEBUFFER, gl.createFramebuffer());
    gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, texture, 0);
    const { videoWidth: width, videoHeight: height } = video;
    return [[1, 1], [3, 1], [1, 3], [3, 3]].map(([x, y]) => {
        const pixel = new Uint8Array(4);
        gl.readPixels((x * width) / 4, (y * height) / 4, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, pixel);
        return [...pixel.slice(0, 3)];
    });
}"""

OpenPage = Callable[..., Any]


def write_page(folder: Path, body: str) -> Path:
    page = f"<!doctype html><meta charset=utf-8><link rel=icon href='data:,'>{body}"
    (folder / "index.html").write_text(page, encoding="utf-8")
    return folder


def write_colors(path: Path, num_frames: int) -> None:
    """Frame i has colour ``(i + quarter) % 4`` in each of its quarters."""
    h, w = SIZE
    with VideoWriter(path, SIZE, fps=FPS, crf=4) as writer:
        for frame in range(num_frames):
            quarters = np.roll(COLORS, -frame, axis=0).reshape(2, 2, 3)
            writer.append(quarters.repeat(h // 2, axis=0).repeat(w // 2, axis=1))


def test_webgl2_is_there_and_draws_to_floats(open_page: OpenPage, tmp_path: Path) -> None:
    page = open_page(write_page(tmp_path, "")).goto()
    features = page.run(FEATURES)
    assert features["floats"]
    assert features["texture"] >= 4096
    page.check()


@pytest.mark.parametrize("frame", [0, 13, 2])
def test_frames_of_a_video_have_their_colors_in_a_texture(open_page: OpenPage, tmp_path: Path, frame: int) -> None:
    """Also says that videos are tagged so that browsers convert them by BT.709: by BT.601 green is off by 25."""
    write_colors(tmp_path / "video.mp4", 20)
    page = open_page(write_page(tmp_path, BODY)).goto()
    seen = np.array(page.run(QUARTERS, (frame + 0.5) / FPS))
    np.testing.assert_allclose(seen, np.roll(COLORS, -frame, axis=0), atol=TOLERANCE)
    page.check()


@pytest.mark.parametrize("served", [True, False])
def test_page_is_served_or_opened_as_a_file(open_page: OpenPage, tmp_path: Path, served: bool) -> None:
    page = open_page(write_page(tmp_path, "here"), served=served).goto()
    assert page.run("location.protocol") == ("http:" if served else "file:")
    assert page.run("document.body.textContent") == "here"


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("console.error('first')", "error: first"),
        ("console.warn('second')", "warning: second"),
        ("setTimeout(() => { throw new Error('third') })", "third"),
        ("Promise.reject(new Error('fourth'))", "fourth"),
        ("fetch('missing.json')", "404: http"),
    ],
)
def test_what_goes_wrong_in_a_page_is_noted(open_page: OpenPage, tmp_path: Path, script: str, words: str) -> None:
    page = open_page(write_page(tmp_path, "")).goto()
    page.check()
    page.run(f"() => {{ {script} }}")
    for _ in range(100):
        page.page.wait_for_timeout(50)
        if any(words in problem for problem in page.problems):
            break
    assert any(words in problem for problem in page.problems), page.problems
    with pytest.raises(AssertionError, match=words):
        page.check()
