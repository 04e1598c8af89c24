"""The player in a browser, on a small clip whose layers are known: what it shows, how it is operated, what it says."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from web_helpers import COLORS, DEPTHS, LIMITS, NAMES, FakeExport, make_fake_export

from maskvolume.geometry.cameras import Camera
from maskvolume.io.llff import read_path
from maskvolume.web.export import picture_psnr

OpenPage = Callable[..., Any]

FAITHFUL = 45.0  # dB: the codec's rounding, opacities and colours interpolated apart
PLACE = (0.2, -0.1, 0.1)  # an offset within the limits
STILL = "() => { const { offset, target } = player.state; return offset.every((value, i) => value === target[i]); }"


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> FakeExport:
    return make_fake_export(tmp_path_factory.mktemp("export") / "clip", offline=True)


@pytest.fixture
def copied(fake: FakeExport, tmp_path: Path) -> Path:
    """The folder of the clip, to be broken."""
    return Path(shutil.copytree(fake.folder, tmp_path / "clip"))


def start(open_page: OpenPage, folder: Path, path: str = "index.html", **options: Any) -> Any:
    """A page with the player at work."""
    opened = open_page(folder, **options).goto(path)
    assert opened.run("async () => (await window.playerReady) !== null"), opened.run("() => window.playerError")
    return opened


def state(opened: Any, name: str) -> Any:
    return opened.run(f"() => player.state.{name}")


def wait(opened: Any, condition: str) -> None:
    opened.page.wait_for_function(condition)


def shown(opened: Any, size: tuple[int, int] = (72, 128)) -> np.ndarray:
    """What the player draws off screen at ``size`` (h, w): uint8 ``[h, w, 3]``."""
    return decode(opened.run("([h, w]) => player.render(w, h)", list(size)))


def decode(url: str) -> np.ndarray:
    """The picture of a data URL: uint8 ``[h, w, 3]``."""
    data = np.frombuffer(base64.b64decode(url.split(",", 1)[1]), dtype=np.uint8)
    return cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1]


def moving_color(picture: np.ndarray) -> np.ndarray:
    """The colour of the disc that moves through colours, seen from the centre."""
    return picture[44:48, 93:97].reshape(-1, 3).mean(axis=0)


def frame_and_picture(opened: Any) -> tuple[int, np.ndarray]:
    """The frame that is told and the picture that is there at one moment, as of ``shown``."""
    script = "async () => { const frame = player.state.frame; return [frame, await player.render(128, 72)]; }"
    frame, url = opened.run(script)
    return frame, decode(url)


def failed(open_page: OpenPage, folder: Path, **options: Any) -> str:
    """The message of a page that can't show its clip; it is seen."""
    opened = open_page(folder, **options).goto()
    assert opened.run("async () => (await window.playerReady) === null")
    message = opened.page.locator("#message")
    assert message.is_visible()
    text = opened.run("() => window.playerError")
    assert text in message.inner_text()
    return str(text)


def rewrite(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    change(manifest)
    path.write_text(json.dumps(manifest), encoding="utf-8")


# What is shown


def test_the_first_picture_is_there_without_a_complaint(open_page: OpenPage, fake: FakeExport) -> None:
    opened = start(open_page, fake.folder)
    assert picture_psnr(shown(opened), fake.render(0, fake.view_from((0, 0, 0)))) > FAITHFUL
    assert opened.page.title().startswith("fake")
    assert not opened.page.locator("#loading").is_visible()
    files = ("manifest.json", "static.webp", "dynamic.mp4")
    assert opened.run("() => player.stats.firstPictureBytes") == sum(
        (fake.folder / name).stat().st_size for name in files
    )
    opened.check()


@pytest.mark.parametrize("offset", [PLACE, (-0.28, 0.05, -0.2), (0, 0.19, 0.25)])
@pytest.mark.parametrize("frame", [0, 4])
def test_views_are_those_of_the_renderer(
    open_page: OpenPage, fake: FakeExport, offset: tuple[float, float, float], frame: int
) -> None:
    opened = start(open_page, fake.folder)
    opened.run(
        "async ([frame, offset]) => { await player.seek(frame); player.setOffset(...offset); }", [frame, [*offset]]
    )
    expected = fake.render(frame, fake.view_from(offset))
    assert picture_psnr(shown(opened), expected) > FAITHFUL
    assert picture_psnr(shown(opened), fake.render(frame, fake.view_from((0, 0, 0)))) < 30  # it is no other view


def test_an_exact_pose_and_another_size(open_page: OpenPage, fake: FakeExport) -> None:
    """Beyond the limits, turned away and zoomed; where nothing covers the view it is filled as in Python."""
    opened = start(open_page, fake.folder)
    T = fake.view_from((-0.7, 0.3, -0.4)).T_cam_world.clone()
    T[:3] = torch.linalg.matrix_exp(torch.tensor([[0, -0.1, 0.05], [0.1, 0, 0.02], [-0.05, -0.02, 0]]).double()) @ T[:3]
    K = fake.view.K * torch.tensor([[0.9], [0.9], [1.0]], dtype=torch.float64)
    opened.run("([T, K]) => player.setPose(T, K)", [T.flatten().tolist(), K.flatten().tolist()])
    target = Camera(T, K, fake.view.size).scaled((105, 187))
    expected = fake.render(0, target)
    assert picture_psnr(shown(opened, (105, 187)), expected) > FAITHFUL


def test_every_frame_is_exact_in_any_order(open_page: OpenPage, fake: FakeExport) -> None:
    opened = start(open_page, fake.folder)
    for frame in (5, 0, 3, 2, 4, 1, 1, 5, 4):
        opened.run("(frame) => player.seek(frame)", frame)
        assert state(opened, "frame") == frame
        np.testing.assert_allclose(moving_color(shown(opened)), COLORS[frame], atol=4)
    # Of many wishes at once the last one counts.
    opened.run("() => Promise.all([3, 1, 5, 0, 2].map((frame) => player.seek(frame)))")
    np.testing.assert_allclose(moving_color(shown(opened)), COLORS[2], atol=4)
    opened.check()


def test_playing_shows_the_frame_that_it_says(open_page: OpenPage, fake: FakeExport) -> None:
    opened = start(open_page, fake.folder)
    opened.run("() => player.play()")
    wait(opened, "() => player.state.frame >= 2")
    for _ in range(6):
        frame, picture = frame_and_picture(opened)
        np.testing.assert_allclose(moving_color(picture), COLORS[frame], atol=4)
        opened.page.wait_for_timeout(130)
    wait(opened, "() => player.state.frame === 0 || player.state.frame === 1")  # it begins again
    opened.run("() => player.pause()")
    assert not state(opened, "playing")
    opened.check()


def test_a_pause_is_exact_whenever_it_comes(open_page: OpenPage, fake: FakeExport) -> None:
    opened = start(open_page, fake.folder)
    for milliseconds in (330, 510, 260, 750):
        opened.run("() => player.play()")
        opened.page.wait_for_timeout(milliseconds)
        opened.run("() => player.pause()")
        opened.run("() => player.seek(player.state.frame)")  # the jump that a pause makes has ended
        frame, picture = frame_and_picture(opened)
        np.testing.assert_allclose(moving_color(picture), COLORS[frame], atol=4)
    opened.check()


# What browsers tell of a video of six frames, ten a second, and which frame that is.
TOLD = {
    "Chromium, WebKit": [(0.0, 0), (0.1, 1), (0.5, 5), (0.0, 0), (0.3, 3)],  # a frame's beginning
    "Firefox": [(0.45, 4), (0.5, 5), (0.6, 0), (0.7, 1), (1.1, 5), (1.2, 0), (2.9, 5), (0.15, 1)],  # counts on
    "rounded": [(0.099999, 1), (0.200001, 2), (0.599999, 0)],
}


@pytest.mark.parametrize("browser", TOLD)
def test_frames_are_told_by_what_each_browser_says_of_time(open_page: OpenPage, fake: FakeExport, browser: str) -> None:
    """The clock alone, with the times that browsers other than this one were seen to tell."""
    opened = start(open_page, fake.folder)
    times, frames = zip(*TOLD[browser], strict=True)
    script = """async (times) => {
        const { VideoClock } = await import("player/clock.js");
        let tell;
        const video = Object.assign(new EventTarget(), {
            requestVideoFrameCallback(callback) { tell = callback; }, ended: false, loop: true, readyState: 0,
        });
        const clock = new VideoClock(video, 10, 6, "dynamic.mp4");
        return times.map((mediaTime) => {
            tell(0, { mediaTime });
            return clock.frame;
        });
    }"""
    assert opened.run(script, list(times)) == list(frames)


def test_few_compared_videos_stay_loaded(open_page: OpenPage, copied: Path) -> None:
    """Phones decode few videos at once; each camera is shown nevertheless, also one whose video was released."""

    def add_cameras(manifest: dict[str, Any]) -> None:
        manifest["cameras"] += [{**manifest["cameras"][0], "name": f"more{i}"} for i in range(3)]

    rewrite(copied, add_cameras)
    opened = start(open_page, copied)
    opened.run(
        """() => {
        window.made = [];
        const create = document.createElement.bind(document);
        document.createElement = (name) => {
            const element = create(name);
            if (name === "video") window.made.push(element);
            return element;
        };
    }"""
    )
    names = [camera["name"] for camera in opened.run("() => player.manifest.cameras")]
    assert len(names) == 6
    for name in (*names, names[0]):
        opened.page.evaluate("(name) => { location.hash = `#camera=${name}&compare=50`; }", name)
        wait(opened, f"() => player.state.compare === '{name}'")
        opened.run("() => player.compared().then(() => null)")
        assert opened.page.locator("#compared video").is_visible()
        wait(opened, "() => document.querySelector('#compared video').readyState >= 2")  # a jump may be under way
    assert opened.run("() => [made.length, made.filter((video) => video.src !== '').length]") == [7, 3]
    opened.check()


def test_without_a_loop_it_stops_at_the_end(open_page: OpenPage, fake: FakeExport) -> None:
    opened = start(open_page, fake.folder, "index.html#loop=0&play=1")
    wait(opened, "() => !player.state.playing && player.state.frame === 5")
    for key in ("[", "[", "Space"):  # slowly, so that it is seen to play however slow the machine is
        opened.page.keyboard.press(key)
    wait(opened, "() => player.state.playing && player.state.frame < 4")


def test_a_clip_in_which_nothing_moves_plays_too(open_page: OpenPage, tmp_path: Path) -> None:
    still = make_fake_export(tmp_path / "still", moves=False)
    opened = start(open_page, still.folder)
    opened.run("async () => { await player.seek(3); player.setOffset(0.2, -0.1, 0.1); }")
    assert picture_psnr(shown(opened), still.render(0, still.view_from(PLACE))) > FAITHFUL
    opened.run("() => player.play()")
    wait(opened, "() => player.state.frame === 1")  # over the end
    opened.check()


def test_disparity_is_bright_where_it_is_near(open_page: OpenPage, fake: FakeExport) -> None:
    opened = start(open_page, fake.folder)
    opened.run("() => player.setMode('disparity')")
    colors = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_INFERNO)[:, 0, ::-1].astype(int)
    picture = shown(opened)
    share = (1 / np.array(DEPTHS) - 1 / DEPTHS[0]) / (1 / DEPTHS[-1] - 1 / DEPTHS[0])
    for (x, y), layer in (((64, 4), 0), ((25, 28), 1), ((112, 18), 2)):
        np.testing.assert_allclose(picture[y, x], colors[round(share[layer] * 255)], atol=6)


def test_the_mask_colors_what_moves_alone(open_page: OpenPage, fake: FakeExport) -> None:
    opened = start(open_page, fake.folder)
    opened.run("() => player.setMode('mask')")
    picture = shown(opened).astype(int)
    assert np.ptp(picture[28, 25]) <= 2  # grey
    assert np.ptp(picture[46, 95]) > 60


def test_layers_apart_are_cards_seen_from_the_side(open_page: OpenPage, fake: FakeExport) -> None:
    opened = start(open_page, fake.folder)
    opened.run("() => player.setMode('layers')")
    middle = shown(opened, (360, 640)).astype(int)
    backdrop = middle[0, 0]
    rows, columns = np.nonzero(np.abs(middle - backdrop).max(axis=-1) > 20)
    assert 300 < np.ptp(columns) < 620
    assert np.ptp(rows) < 350
    opened.run("() => player.setOffset(0.3, 0, 0)")
    assert picture_psnr(shown(opened, (360, 640)), middle.astype(np.uint8)) < 30  # it turns


@pytest.mark.slow
def test_sharpness_follows_the_screen_up_to_what_the_picture_has(open_page: OpenPage, fake: FakeExport) -> None:
    sizes = []
    for scale, width in ((1, 150), (1, 1000), (3, 1000)):
        opened = start(open_page, fake.folder, viewport={"width": width, "height": 700}, device_scale_factor=scale)
        sizes.append(opened.run("() => document.getElementById('view').width"))
    assert sizes == [150, 192, 192]


# How it is operated


def test_dragging_moves_and_a_tap_plays(open_page: OpenPage, fake: FakeExport) -> None:
    opened = start(open_page, fake.folder)
    mouse = opened.page.mouse
    mouse.move(600, 300)
    mouse.down()
    mouse.move(500, 330, steps=5)
    wait(opened, "() => player.state.target[0] > 0.03 && player.state.target[1] < 0")
    mouse.move(-3000, 300, steps=5)
    wait(opened, "() => player.state.offset[0] > 0.3001 && player.state.offset[0] < 0.34")  # it gives way
    mouse.up()
    wait(opened, "() => Math.abs(Math.hypot(player.state.offset[0] / 0.3, player.state.offset[1] / 0.2) - 1) < 1e-3")
    assert not state(opened, "playing")
    mouse.click(600, 300)
    wait(opened, "() => player.state.playing")
    mouse.wheel(0, -300)
    wait(opened, "() => player.state.offset[2] > 0.1")
    opened.check()


def test_two_fingers_come_closer(open_page: OpenPage, fake: FakeExport) -> None:
    opened = start(open_page, fake.folder, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    session = opened.page.context.new_cdp_session(opened.page)
    box = opened.page.locator("#frame").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def touch(kind: str, spread: float) -> None:
        points = [{"x": x - spread, "y": y, "id": 0}, {"x": x + spread, "y": y, "id": 1}] if spread else []
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", 30)
    for spread in (40, 50, 60):
        touch("touchMove", spread)
    touch("touchEnd", 0)
    wait(opened, "() => player.state.offset[2] > 0.2")
    assert abs(state(opened, "offset")[0]) < 0.02
    assert not state(opened, "playing")  # it was no tap


def test_tilting_moves(open_page: OpenPage, fake: FakeExport) -> None:
    options: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
    opened = start(open_page, fake.folder, **options)
    opened.page.locator("#tilt").click()
    opened.page.locator("#tilt[aria-pressed=true]").wait_for()  # the browser was asked
    script = (
        """([beta, gamma]) => window.dispatchEvent(new DeviceOrientationEvent("deviceorientation", { beta, gamma }))"""
    )
    opened.run(script, [40, 0])
    opened.run(script, [40, 9])
    wait(opened, "() => Math.abs(player.state.offset[0] - 0.15) < 0.001")
    opened.page.locator("#tilt").click()
    opened.run(script, [40, -9])
    assert state(opened, "target")[0] == pytest.approx(0.15)


def test_everything_by_keys(open_page: OpenPage, fake: FakeExport) -> None:
    opened = start(open_page, fake.folder)
    press = opened.page.keyboard.press
    press("End")
    wait(opened, "() => player.state.frame === 5")
    press(",")
    wait(opened, "() => player.state.frame === 4")
    press(".")
    wait(opened, "() => player.state.frame === 5")
    press("Home")
    wait(opened, "() => player.state.frame === 0")
    press("[")
    assert state(opened, "speed") == 0.5
    press("l")
    assert not state(opened, "loop")
    for key, mode in (("d", "disparity"), ("e", "layers"), ("m", "mask"), ("m", "color")):
        press(key)
        assert state(opened, "mode") == mode
    opened.page.keyboard.down("ArrowRight")
    wait(opened, "() => player.state.offset[0] > 0.1")
    opened.page.keyboard.up("ArrowRight")
    press("0")
    wait(opened, "() => player.state.offset.every((value) => value === 0)")
    press("2")
    wait(opened, "() => player.state.camera === 'right'")
    press("Space")
    wait(opened, "() => player.state.playing")
    press("?")
    assert opened.page.locator("#help-dialog").is_visible()
    press("Escape")
    assert not opened.page.locator("#help-dialog").is_visible()
    opened.check()


def test_controls_fade_while_it_plays_and_come_back(open_page: OpenPage, fake: FakeExport) -> None:
    opened = start(open_page, fake.folder)
    opened.page.keyboard.press("Space")
    wait(opened, "() => getComputedStyle(document.getElementById('controls')).opacity === '0'")
    opened.page.mouse.move(500, 300)
    wait(opened, "() => getComputedStyle(document.getElementById('controls')).opacity === '1'")


def test_full_screen(open_page: OpenPage, fake: FakeExport) -> None:
    opened = start(open_page, fake.folder)
    opened.page.locator("#fullscreen").click()
    wait(opened, "() => document.fullscreenElement !== null")
    opened.page.keyboard.press("f")
    wait(opened, "() => document.fullscreenElement === null")
    opened.check()


def test_tab_reaches_all_that_is_seen_and_each_has_a_name(open_page: OpenPage, fake: FakeExport) -> None:
    opened = start(open_page, fake.folder)
    script = """() => [...document.querySelectorAll("#controls button, #controls select, #controls input, #view")]
        .filter((element) => element.offsetParent !== null).map((element) => element.id || element.dataset.mode)"""
    expected = set(opened.run(script))
    reached = set()
    for _ in range(len(expected) + 3):
        opened.page.keyboard.press("Tab")
        name = opened.run("() => document.activeElement.id || document.activeElement.dataset.mode")
        if name:
            reached.add(name)
            outline = opened.run("() => getComputedStyle(document.activeElement).outlineStyle")
            assert outline == "solid", name
    assert expected <= reached
    names = opened.run(
        """() => [...document.querySelectorAll("#controls button, #controls select, #controls input")]
            .map((each) => each.getAttribute("aria-label") || each.labels?.[0]?.textContent || each.textContent)"""
    )
    assert all(name.strip() for name in names)
    # A focused button takes the space bar for itself.
    opened.page.locator("[data-mode=mask]").focus()
    opened.page.keyboard.press("Space")
    assert (state(opened, "mode"), state(opened, "playing")) == ("mask", False)


def test_targets_are_large_enough_for_fingers_and_nothing_leaves_a_phone(open_page: OpenPage, fake: FakeExport) -> None:
    options: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
    opened = start(open_page, fake.folder, **options)
    script = """() => [...document.querySelectorAll("#controls button, #controls select, #controls input")]
        .filter((element) => element.offsetParent !== null).map((element) => {
            const { left, right, top, bottom } = element.getBoundingClientRect();
            return [element.id || element.textContent, left, right, top, bottom];
        })"""
    for name, left, right, top, bottom in opened.run(script):
        assert min(right - left, bottom - top) >= 40, name
        assert left >= 0, name
        assert right <= 390, name
        assert bottom <= 844, name


def test_presets_are_the_cameras_exactly_and_moving_on_turns_back(open_page: OpenPage, fake: FakeExport) -> None:
    opened = start(open_page, fake.folder)
    opened.page.locator("#preset").select_option(label="left")
    expected = fake.cameras[0].T_cam_world.flatten().numpy()
    wait(opened, "() => player.state.camera === 'left'")
    wait(opened, f"() => Math.abs(player.state.pose.T_cam_world[3] - ({expected[3]})) < 1e-9")
    np.testing.assert_allclose(state(opened, "pose")["T_cam_world"], expected, atol=1e-9)
    assert picture_psnr(shown(opened), fake.render(0, fake.cameras[0])) > FAITHFUL
    opened.page.keyboard.down("ArrowRight")
    wait(opened, "() => player.state.offset[0] > -0.15")
    opened.page.keyboard.up("ArrowRight")
    wait(opened, STILL)
    wait(opened, "() => player.state.camera === null")
    place = state(opened, "offset")
    wanted = fake.view_from(tuple(place)).T_cam_world.flatten().numpy()
    wait(opened, f"() => Math.abs(player.state.pose.T_cam_world[1] - ({wanted[1]})) < 1e-9")
    np.testing.assert_allclose(state(opened, "pose")["T_cam_world"], wanted, atol=1e-9)


def test_comparing_shows_what_the_nearest_camera_saw_in_time(open_page: OpenPage, fake: FakeExport) -> None:
    opened = start(open_page, fake.folder)
    loaded: list[str] = []
    opened.page.on("request", lambda request: loaded.append(request.url.rsplit("/", 1)[1]))
    opened.run("async () => { player.setOffset(0.2, 0, 0); await player.seek(3); }")
    opened.page.keyboard.press("c")
    wait(opened, "() => player.state.compare === 'right'")
    opened.run("() => player.compared().then(() => null)")
    assert [name for name in loaded if name.endswith(".mp4")] == ["right.mp4"]
    for frame in (3, 1):
        opened.run("(frame) => player.seek(frame)", frame)
        time = (frame + 0.5) / fake.manifest["fps"]
        video = "document.querySelector('#compared video')"
        wait(opened, f"() => !{video}.seeking && Math.abs({video}.currentTime - {time}) < 0.02")
    box = opened.page.locator("#frame").bounding_box()
    y = box["y"] + box["height"] * 0.5
    opened.page.mouse.move(box["x"] + box["width"] / 2, y)
    opened.page.mouse.down()
    opened.page.mouse.move(box["x"] + box["width"] * 0.25, y)
    opened.page.mouse.up()
    assert state(opened, "divider") == pytest.approx(0.25, abs=0.01)
    opened.page.keyboard.press("ArrowLeft")
    assert state(opened, "divider") == pytest.approx(0.21, abs=0.01)
    picture = cv2.imdecode(np.frombuffer(opened.page.screenshot(), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    seen = picture[round(y), round(box["x"] + box["width"] * 0.1)]
    np.testing.assert_allclose(seen, COLORS[1] // 2, atol=6)
    opened.page.keyboard.press("Escape")
    assert state(opened, "compare") is None
    opened.check()


# What is handed on


def test_the_address_follows_and_a_link_shows_the_same(open_page: OpenPage, fake: FakeExport) -> None:
    opened = start(open_page, fake.folder)
    opened.run("async () => { await player.seek(4); player.setOffset(0.1, -0.05, 0.2); player.setMode('mask'); }")
    opened.page.keyboard.press("[")
    wait(opened, "() => location.hash.includes('at=') && location.hash.includes('frame=4')")
    hash_ = opened.run("() => location.hash")
    again = start(open_page, fake.folder, f"index.html{hash_}")
    for name in ("frame", "mode", "speed", "offset"):
        assert state(again, name) == state(opened, name), name
    again.page.evaluate("() => { location.hash = '#frame=2&camera=above'; }")
    wait(again, "() => player.state.frame === 2 && player.state.camera === 'above' && player.state.mode === 'color'")
    again.check()


def test_a_link_that_is_visited_while_it_plays_stands_still(open_page: OpenPage, fake: FakeExport) -> None:
    opened = start(open_page, fake.folder, "index.html#play=1&speed=0.5")
    wait(opened, "() => player.state.playing")
    opened.page.evaluate("() => { location.hash = '#frame=2&show=layers&compare=50'; }")
    wait(opened, "() => player.state.mode === 'layers' && !player.state.playing && player.state.frame === 2")
    assert state(opened, "compare") is None  # which needs the picture from a camera's place
    opened.check()


def test_links_are_copied(open_page: OpenPage, fake: FakeExport) -> None:
    opened = start(open_page, fake.folder, permissions=["clipboard-read", "clipboard-write"])
    opened.run("() => player.seek(2)")
    opened.page.keyboard.press("u")
    wait(opened, "() => document.getElementById('announce').textContent === 'Link copied'")
    assert opened.run("() => navigator.clipboard.readText()") == f"{opened.url}index.html#frame=2"


@pytest.mark.parametrize(
    "address", ["frame=x&at=1,2&show=nothing&speed=no", "frame=999&at=9,9,9&camera=none&compare=a"]
)
def test_a_wrong_address_does_no_harm(open_page: OpenPage, fake: FakeExport, address: str) -> None:
    opened = start(open_page, fake.folder, f"index.html#{address}")
    x, y, z = state(opened, "offset")
    assert np.hypot(x / LIMITS[0], y / LIMITS[1]) <= 1 + 1e-9
    assert abs(z) <= LIMITS[2]
    assert state(opened, "frame") in (0, 5)
    opened.check()


def test_a_path_through_the_clip_has_a_pose_for_each_frame(
    open_page: OpenPage, fake: FakeExport, tmp_path: Path
) -> None:
    opened = start(open_page, fake.folder, "index.html#speed=0.5", permissions=["clipboard-read", "clipboard-write"])
    opened.run("() => player.play()")
    wait(opened, "() => player.state.frame >= 2")
    opened.run("() => player.setOffset(0.2, -0.1, 0.1)")
    opened.page.keyboard.press("r")
    opened.page.locator("#path-dialog").wait_for()
    with opened.page.expect_download() as download:
        opened.page.locator("#path-download").click()
    path = tmp_path / "path.txt"
    download.value.save_as(path)
    cameras = read_path(path)
    assert len(cameras) == len(COLORS)
    expected = fake.view_from(PLACE)
    torch.testing.assert_close(cameras.T_cam_world, expected.T_cam_world.expand(len(COLORS), 4, 4), rtol=0, atol=1e-9)
    torch.testing.assert_close(cameras.K[0], expected.K, rtol=0, atol=1e-9)
    assert cameras.size == expected.size
    opened.page.locator("#path-copy").click()
    wait(opened, "() => document.getElementById('announce').textContent === 'Path file copied'")
    assert opened.run("() => navigator.clipboard.readText()") == path.read_text(encoding="ascii")
    assert "--time loop" in opened.page.locator("#path-command").input_value()
    assert state(opened, "loop")  # as before
    opened.check()


def test_a_path_ends_with_the_clip_where_the_browser_does_not_tell_of_its_last_frame(
    open_page: OpenPage, fake: FakeExport
) -> None:
    opened = open_page(fake.folder)
    opened.page.add_init_script(
        """const ask = HTMLVideoElement.prototype.requestVideoFrameCallback;
        HTMLVideoElement.prototype.requestVideoFrameCallback = function (tell) {
            return ask.call(this, (now, data) => {
                const isLast = data.mediaTime > this.duration * (1 - 1.5 / FRAMES);
                isLast ? this.requestVideoFrameCallback(tell) : tell(now, data);
            });
        };""".replace("FRAMES", str(len(COLORS)))
    )
    opened.goto("index.html#speed=0.5")
    opened.run("() => window.playerReady.then(() => null)")
    opened.run("() => player.play()")
    opened.page.keyboard.press("r")
    opened.page.locator("#path-dialog").wait_for()
    assert opened.run("() => player.recorder.poses.length") == len(COLORS)
    assert state(opened, "frame") == len(COLORS) - 1
    opened.check()


def test_a_path_while_time_stands_still_names_the_frame(open_page: OpenPage, fake: FakeExport, tmp_path: Path) -> None:
    opened = start(open_page, fake.folder, "index.html#frame=3")
    opened.page.keyboard.press("r")
    opened.page.keyboard.down("ArrowLeft")
    wait(opened, "() => player.state.offset[0] < -0.1")
    opened.page.keyboard.up("ArrowLeft")
    opened.page.keyboard.press("r")
    opened.page.locator("#path-dialog").wait_for()
    assert "--time fix:3" in opened.page.locator("#path-summary").inner_text()
    assert "--time fix:3" in opened.page.locator("#path-command").input_value()
    path = tmp_path / "path.txt"
    path.write_text(opened.page.locator("#path-text").input_value(), encoding="ascii")
    places = read_path(path).center
    assert len(places) >= 2
    assert float((places[0] - places[-1]).norm()) > 0.05


def test_a_link_compares(open_page: OpenPage, fake: FakeExport) -> None:
    opened = start(open_page, fake.folder, "index.html#camera=left&compare=30")
    opened.run("() => player.compared().then(() => null)")
    assert (state(opened, "compare"), state(opened, "divider")) == ("left", 0.3)
    assert opened.page.locator("#compared video").is_visible()
    opened.check()


# What can go wrong


def test_the_poster_and_how_far_loading_is_are_seen_first(open_page: OpenPage, fake: FakeExport) -> None:
    opened = open_page(fake.folder)
    held: list[Any] = []
    opened.page.route("**/static.webp", lambda route: held.append(route))
    opened.goto()
    wait(opened, "() => document.getElementById('progress').value > 0.1")  # the video has come
    assert opened.page.locator("#poster").is_visible()
    assert opened.page.locator("#loading").is_visible()
    box = opened.page.locator("#poster").bounding_box()
    assert box["width"] > 900
    assert box["width"] / box["height"] == pytest.approx(128 / 72, rel=0.01)
    held[0].continue_()
    opened.run("() => window.playerReady.then(() => null)")
    wait(opened, "() => getComputedStyle(document.getElementById('poster')).opacity === '0'")
    assert not opened.page.locator("#loading").is_visible()


LESS = {
    "no float pictures": """const all = WebGL2RenderingContext.prototype.getExtension;
        WebGL2RenderingContext.prototype.getExtension = function (name) {
            return name.includes("color_buffer") ? null : all.call(this, name);
        };""",
    "no callback of frames": "delete HTMLVideoElement.prototype.requestVideoFrameCallback",
}


@pytest.mark.parametrize("what", LESS)
def test_browsers_that_can_do_less_show_the_same(open_page: OpenPage, fake: FakeExport, what: str) -> None:
    opened = open_page(fake.folder)
    opened.page.add_init_script(LESS[what])
    opened.goto()
    opened.run("() => window.playerReady.then(() => null)")
    assert opened.run("() => player.stats.frameBuffer") == ("RGBA8" if what == "no float pictures" else "RGBA16F")
    for frame in (4, 1):
        opened.run("async (frame) => { await player.seek(frame); player.setOffset(0.2, -0.1, 0.1); }", frame)
        assert picture_psnr(shown(opened), fake.render(frame, fake.view_from(PLACE))) > FAITHFUL
    opened.run("() => player.play()")
    wait(opened, "() => player.state.frame >= 3")
    opened.check()


def test_a_large_video_is_loaded_while_it_plays(open_page: OpenPage, copied: Path) -> None:
    rewrite(copied, lambda manifest: manifest["bytes"].update({"dynamic.mp4": 10**9}))
    opened = start(open_page, copied)
    assert opened.run("() => player.stats.firstPictureBytes") < 10**6
    for frame in (4, 1):
        opened.run("(frame) => player.seek(frame)", frame)
        np.testing.assert_allclose(moving_color(shown(opened)), COLORS[frame], atol=4)
    opened.check()


def test_a_double_click_plays_without_a_server(open_page: OpenPage, fake: FakeExport) -> None:
    opened = start(open_page, fake.folder, served=False)
    opened.run("async () => { await player.seek(4); player.setOffset(0.2, -0.1, 0.1); }")
    assert picture_psnr(shown(opened), fake.render(4, fake.view_from(PLACE))) > FAITHFUL
    opened.page.keyboard.press("c")
    wait(opened, "() => player.state.compare === 'right'")
    opened.run("() => player.compared().then(() => null)")
    assert opened.page.locator("#compared video").is_visible()
    opened.check()


def test_a_double_click_without_its_file_says_how_to_serve(open_page: OpenPage, copied: Path) -> None:
    (copied / "offline.js").unlink()
    message = failed(open_page, copied, served=False)
    assert "offline.js" in message
    assert "python render/view.py" in message


@pytest.mark.parametrize("name", ["manifest.json", "static.webp", "dynamic.mp4"])
def test_a_missing_file_is_named(open_page: OpenPage, copied: Path, name: str) -> None:
    (copied / name).unlink()
    message = failed(open_page, copied)
    assert message.startswith(f"{name}: missing")
    assert "Copy the whole folder again" in message


@pytest.mark.parametrize("name", ["static.webp", "dynamic.mp4"])
def test_a_file_that_was_cut_short_is_named(open_page: OpenPage, copied: Path, name: str) -> None:
    data = (copied / name).read_bytes()
    (copied / name).write_bytes(data[: len(data) // 2])
    message = failed(open_page, copied)
    assert message.startswith(f"{name}: ")
    assert "cut short" in message


@pytest.mark.parametrize("name", ["static.webp", "dynamic.mp4"])
def test_a_damaged_file_is_named(open_page: OpenPage, copied: Path, name: str) -> None:
    (copied / name).write_bytes(b"x" * (copied / name).stat().st_size)
    message = failed(open_page, copied)
    assert message.startswith(f"{name}: ")
    assert "damaged" in message


def test_a_file_of_another_export_is_named(open_page: OpenPage, copied: Path) -> None:
    rewrite(copied, lambda manifest: manifest["static"].update(width=4 * manifest["static"]["width"]))
    message = failed(open_page, copied)
    assert message.startswith("static.webp: ")
    assert "another export" in message


BROKEN: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "format": (lambda m: m.update(format="other"), "not the manifest of an exported clip"),
    "version": (lambda m: m.update(version=2), "version 2"),
    "no layers": (lambda m: m.pop("layers"), '"layers"'),
    "depth": (lambda m: m["layers"][1].update(depth=-1), '"layers"'),
    "K": (lambda m: m["mpi"]["K"].pop(), '"mpi"'),
    "tiles": (lambda m: m["static"]["tiles"].append(1), '"static.tiles"'),
    "tile outside": (lambda m: m["dynamic"]["tiles"].__setitem__(1, 99), '"dynamic.tiles"'),
    "limits": (lambda m: m["view"].pop("limits"), '"view.limits"'),
    "frames": (lambda m: m.update(frames=0), '"frames"'),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_wrong_manifest_is_told_apart(open_page: OpenPage, copied: Path, what: str) -> None:
    change, expected = BROKEN[what]
    rewrite(copied, change)
    message = failed(open_page, copied)
    assert message.startswith("manifest.json: ")
    assert expected in message


def test_a_manifest_that_was_cut_short_is_named(open_page: OpenPage, copied: Path) -> None:
    text = (copied / "manifest.json").read_text(encoding="utf-8")
    (copied / "manifest.json").write_text(text[:200], encoding="utf-8")
    assert failed(open_page, copied).startswith("manifest.json: damaged or cut short")


WITHOUT = {
    "WebGL2": "HTMLCanvasElement.prototype.getContext = () => null",
    "H.264": "HTMLMediaElement.prototype.canPlayType = () => ''",
    "too old": "HTMLScriptElement.supports = () => false",
}


@pytest.mark.parametrize("what", WITHOUT)
def test_what_the_browser_lacks_is_said(open_page: OpenPage, fake: FakeExport, what: str) -> None:
    opened = open_page(fake.folder)
    opened.page.add_init_script(WITHOUT[what])
    opened.goto()
    assert opened.run("async () => (await window.playerReady) === null")
    assert opened.page.locator("#message").is_visible()
    assert what in opened.page.locator("#message").inner_text()


def test_a_module_that_is_missing_is_no_blank_page(open_page: OpenPage, copied: Path) -> None:
    (copied / "player" / "viewpoint.js").unlink()
    assert "player itself can't be loaded" in failed(open_page, copied)


def test_a_missing_video_of_a_camera_stops_nothing(open_page: OpenPage, copied: Path) -> None:
    for name in NAMES:
        (copied / "cameras" / f"{name}.mp4").unlink()
    opened = start(open_page, copied)
    opened.page.keyboard.press("c")
    wait(opened, "() => document.getElementById('announce').textContent.includes('.mp4: missing')")
    assert state(opened, "compare") is None
    opened.page.keyboard.press("Space")
    wait(opened, "() => player.state.playing")


def test_lost_graphics_are_said(open_page: OpenPage, fake: FakeExport) -> None:
    opened = start(open_page, fake.folder)
    opened.run(
        "() => document.getElementById('view').getContext('webgl2').getExtension('WEBGL_lose_context').loseContext()"
    )
    wait(opened, "() => window.playerError?.includes('Reload the page')")
