"""Downloads from a server on this machine: each video once, what is gone is not asked for again."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from realestate10k_helpers import MadeData, Reply, VideoServer, serve_videos
from tqdm import TMonitor
from video_helpers import copy_packets

from maskvolume.io.realestate10k import video_stem
from maskvolume.io.video import VideoFrames
from maskvolume.runtime.errors import InputError
from preprocessing import download_data as program
from preprocessing.download_data import Downloader, DownloadOptions, check_video, main, plan_downloads
from preprocessing.extract_frames import main as extract
from preprocessing.make_example_data import ExampleOptions, make_example_data

QUICK = ("--backoff", "0.01", "--min_free_gb", "0", "--timeout", "10")


@pytest.fixture
def data(numbered_video: Path) -> bytes:
    return numbered_video.read_bytes()


@pytest.fixture
def download(tmp_path: Path) -> Callable[..., dict[str, dict]]:
    """A function that runs the program on tmp_path/cameras; gives the report by the stems of the videos."""

    def run(*arguments: object) -> dict[str, dict]:
        folders = ["--root_dir", tmp_path / "cameras", "--out_dir", tmp_path / "out"]
        main([str(word) for word in (*folders, *QUICK, *arguments)])
        return report_of(tmp_path / "out")

    return run


def report_of(out: Path) -> dict[str, dict]:
    entries = [json.loads(line) for line in (out / "downloads.jsonl").read_text().splitlines()]
    assert len({entry["video"] for entry in entries}) == len(entries)
    return {entry["video"]: entry for entry in entries}


def videos_of(tmp_path: Path) -> dict[str, bytes]:
    return {path.stem: path.read_bytes() for path in (tmp_path / "out/videos").glob("*.mp4")}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_video_of_many_scenes_is_downloaded_once(
    server: VideoServer, data: bytes, write_scene: Callable, download: Callable, tmp_path: Path, capsys
) -> None:
    urls = [server.add(f"{name}.mp4", Reply(data)) for name in ("one", "two")]
    for i in range(6):
        write_scene(f"scene{i}", urls[i % 2])
    report = download()
    stems = [video_stem(url) for url in urls]
    assert videos_of(tmp_path) == dict.fromkeys(stems, data)
    assert report == {
        stem: {"video": stem, "url": url, "state": "done", "bytes": len(data)}
        for stem, url in zip(stems, urls, strict=True)
    }
    # yt-dlp asks what it is, then for the data.
    assert server.requests == {"/one.mp4": 2, "/two.mp4": 2}
    assert "2 videos: 2 done" in capsys.readouterr().out
    before = contents(tmp_path)
    download()
    assert server.requests.total() == 4
    assert contents(tmp_path) == before
    assert [path.name for path in (tmp_path / "out/videos").iterdir() if path.name.startswith(".")] == []


def test_what_became_of_each_video(
    server: VideoServer, data: bytes, write_scene: Callable, download: Callable, tmp_path: Path, capsys
) -> None:
    """Gone and private ones are asked for once, failed ones in each run."""
    replies = {
        "good": Reply(data),
        "gone404": Reply(status=404),
        "gone410": Reply(status=410),
        "private401": Reply(status=401),
        "forbidden403": Reply(status=403),
        "notvideo": Reply(b"not a video at all " * 100),
        "page": Reply(b"<!doctype html><html><body>a page</body></html>", kind="text/html"),
        "cut": Reply(data[: len(data) * 2 // 3]),
        "dropped": Reply(data, missing=len(data) // 3),
        "empty": Reply(b""),
    }
    urls = {name: server.add(f"{name}.mp4", reply) for name, reply in replies.items()}
    for name, url in urls.items():
        write_scene(name, url)
    entries = download("--retries", 1, "--workers", 3)
    by_name = {name: entries[video_stem(url)] for name, url in urls.items()}
    states = {name: entry["state"] for name, entry in by_name.items()}
    assert states == {
        **dict.fromkeys(replies, "failed"),
        "good": "done",
        "gone404": "gone",
        "gone410": "gone",
        "private401": "private",
    }
    for name, why in (
        ("gone404", "HTTP Error 404"),
        ("private401", "HTTP Error 401"),
        ("forbidden403", "HTTP Error 403"),
        ("notvideo", "the download is not a complete video: cannot be opened as a video"),
        ("page", "no video at this address"),
        ("cut", "the download is not a complete video: the video is cut short"),
        # The first where the end is noticed by the count of bytes, the second where it is by the connection.
        ("dropped", rf"expected {len(data)} bytes|bytes read, \d+ more expected"),
    ):
        assert re.search(why, by_name[name]["why"]), by_name[name]
    assert all(entry["url"] == urls[name] for name, entry in by_name.items())
    assert videos_of(tmp_path) == {video_stem(urls["good"]): data}
    assert "10 videos: 1 done, 2 gone, 1 private, 6 failed" in capsys.readouterr().out

    first = server.requests.copy()
    # One try for what is final, two for what may mend itself.
    assert {name: first[f"/{name}.mp4"] for name in ("gone404", "gone410", "private401", "forbidden403")} == {
        "gone404": 1,
        "gone410": 1,
        "private401": 1,
        "forbidden403": 2,
    }
    server.replies["/cut.mp4"] = server.replies["/forbidden403.mp4"] = Reply(data)
    report = download("--retries", 0)
    asked = {name for name in replies if server.requests[f"/{name}.mp4"] > first[f"/{name}.mp4"]}
    assert asked == {name for name, state in states.items() if state == "failed"}
    assert sorted(videos_of(tmp_path)) == sorted(video_stem(urls[name]) for name in ("good", "cut", "forbidden403"))
    assert report[video_stem(urls["cut"])]["state"] == "done"


def test_gone_and_private_are_asked_for_again_on_demand(
    server: VideoServer, data: bytes, write_scene: Callable, download: Callable
) -> None:
    urls = [
        server.add("a.mp4", Reply(status=404)),
        server.add("b.mp4", Reply(status=401)),
        server.add("c.mp4", Reply(data)),
    ]
    for name, url in zip("abc", urls, strict=True):
        write_scene(name, url)
    download()
    server.requests.clear()
    download("--again", "private")
    assert set(server.requests) == {"/b.mp4"}
    server.replies["/a.mp4"] = Reply(data)
    report = download("--again", "gone", "private")
    assert server.requests == {"/a.mp4": 2, "/b.mp4": 2}
    assert [report[video_stem(url)]["state"] for url in urls] == ["done", "private", "done"]


def test_retries_wait_longer_each_time(
    server: VideoServer, data: bytes, write_scene: Callable, download: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_scene("a", server.add("a.mp4", Reply(data, failures=3)))
    waits, true_wait = [], threading.Event.wait

    def wait(event: threading.Event, timeout: float | None = None) -> bool:
        if isinstance(threading.current_thread(), TMonitor):  # the progress bar's, which waits all the time
            return true_wait(event, timeout)
        waits.append(timeout)
        return False

    monkeypatch.setattr(threading.Event, "wait", wait)
    with pytest.raises(InputError, match=r"none of 1 videos could be downloaded; the first: .*HTTP Error 503"):
        download("--retries", 2, "--backoff", 1, "--workers", 1)
    assert [wait for wait in waits if wait is not None] == [1, 2]
    assert server.requests["/a.mp4"] == 3
    (entry,) = download("--retries", 2).values()
    assert entry["state"] == "done"


def test_files_count_more_than_the_report(
    server: VideoServer, data: bytes, write_scene: Callable, download: Callable, tmp_path: Path
) -> None:
    """A file that was put there is done; one that was removed, or is broken, is downloaded."""
    urls = {name: server.add(f"{name}.mp4", Reply(data)) for name in ("put", "broken", "removed")}
    for name, url in urls.items():
        write_scene(name, url)
    folder = tmp_path / "out/videos"
    folder.mkdir(parents=True)
    (folder / f"{video_stem(urls['put'])}.mp4").write_bytes(data)
    (folder / f"{video_stem(urls['broken'])}.mp4").write_bytes(data[:1000])
    download()
    assert "/put.mp4" not in server.requests
    assert server.requests["/broken.mp4"] == 2
    assert videos_of(tmp_path) == {video_stem(url): data for url in urls.values()}
    server.requests.clear()
    (folder / f"{video_stem(urls['removed'])}.mp4").unlink()
    download()
    assert set(server.requests) == {"/removed.mp4"}
    assert videos_of(tmp_path) == {video_stem(url): data for url in urls.values()}


def test_limit_takes_the_first_videos(
    server: VideoServer, data: bytes, write_scene: Callable, download: Callable
) -> None:
    for name, video in (("a", "x"), ("b", "x"), ("c", "y"), ("d", "z")):
        write_scene(name, server.add(f"{video}.mp4", Reply(data)))
    for _ in range(2):
        download("--limit", 2)
        assert set(server.requests) == {"/x.mp4", "/y.mp4"}
    assert len(download()) == 3


def test_another_container_becomes_mp4(
    server: VideoServer, numbered_video: Path, write_scene: Callable, download: Callable, tmp_path: Path
) -> None:
    copy_packets(numbered_video, tmp_path / "a.mkv")
    url = server.add("a.mkv", Reply((tmp_path / "a.mkv").read_bytes(), kind="video/x-matroska"))
    write_scene("a", url)
    download()
    path = tmp_path / "out/videos" / f"{video_stem(url)}.mp4"
    assert path.read_bytes()[4:8] == b"ftyp"
    assert VideoFrames(path).count == 100


def test_half_a_download_has_no_name_and_a_stopped_run_goes_on(
    repo_root: Path, server: VideoServer, data: bytes, write_scene: Callable, download: Callable, tmp_path: Path
) -> None:
    hold = threading.Event()
    urls = [server.add(f"{name}.mp4", Reply(data, hold=hold)) for name in "ab"]
    for name, url in zip("ab", urls, strict=True):
        write_scene(name, url)
    command = [sys.executable, str(repo_root / "preprocessing/download_data.py"), "--root_dir", "cameras"]
    command += ["--out_dir", "out", "--workers", "2", *QUICK]
    started = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    # Both are under way at once, and half of each has come.
    while len(list(tmp_path.glob("out/videos/.download/*.part"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert len(list(tmp_path.glob("out/videos/.download/*.part"))) == 2
    assert videos_of(tmp_path) == {}
    started.send_signal(signal.SIGTERM)
    _, errors = started.communicate(timeout=20)
    assert started.returncode == 130, errors
    assert "Traceback" not in errors
    assert videos_of(tmp_path) == {}
    hold.set()
    download()
    assert videos_of(tmp_path) == {video_stem(url): data for url in urls}


def test_disk_space_is_looked_after(
    server: VideoServer, data: bytes, write_scene: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abc":
        write_scene(name, server.add(f"{name}.mp4", Reply(data)))
    folders = ["--root_dir", str(tmp_path / "cameras"), "--out_dir", str(tmp_path / "out"), "--workers", "1"]
    with pytest.raises(InputError, match=r"videos: .* GB of this disk are free, --min_free_gb requires 1e\+06; free"):
        main([*folders, "--min_free_gb", "1e6"])
    assert not server.requests
    usage = shutil.disk_usage(tmp_path)

    def filling(path: Path) -> object:
        return usage._replace(free=10e9 if len(videos_of(tmp_path)) < 2 else 1e9)

    with monkeypatch.context() as patch:
        patch.setattr(program.shutil, "disk_usage", filling)
        with pytest.raises(InputError, match=r"1\.0 GB of this disk are free"):
            main([*folders, "--min_free_gb", "5"])
    assert len(videos_of(tmp_path)) == 2
    assert {entry["state"] for entry in report_of(tmp_path / "out").values()} == {"done"}
    main([*folders, *QUICK])
    assert len(videos_of(tmp_path)) == 3
    assert server.requests.total() == 6


def test_disk_space_is_looked_after_within_a_video(
    server: VideoServer, data: bytes, write_scene: Callable, download: Callable, tmp_path: Path, monkeypatch
) -> None:
    write_scene("a", server.add("a.mp4", Reply(data)))
    usage = shutil.disk_usage(tmp_path)
    calls = []

    def filling(path: Path) -> object:
        calls.append(path)
        return usage._replace(free=10e9 if len(calls) < 3 else 1e9)

    monkeypatch.setattr(program.shutil, "disk_usage", filling)
    with pytest.raises(InputError, match=r"1\.0 GB of this disk are free"):
        download("--min_free_gb", 5)
    assert videos_of(tmp_path) == {}
    assert report_of(tmp_path / "out") == {}


def test_yt_dlp_is_needed_only_to_download(
    server: VideoServer, data: bytes, write_scene: Callable, download: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_scene("a", server.add("a.mp4", Reply(data)))
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "yt_dlp", None)
        with pytest.raises(InputError, match="yt-dlp: is not installed; install it with"):
            download()
    download()
    monkeypatch.setitem(sys.modules, "yt_dlp", None)
    download()


def test_an_error_within_yt_dlp_is_one_failed_video(
    server: VideoServer, data: bytes, write_scene: Callable, download: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    import yt_dlp

    urls = [server.add(f"{name}.mp4", Reply(data)) for name in "ab"]
    for name, url in zip("ab", urls, strict=True):
        write_scene(name, url)
    extract_info = yt_dlp.YoutubeDL.extract_info

    def broken(self: object, url: str, **arguments: object) -> object:
        if url == urls[0]:
            raise AttributeError("'NoneType' object has no attribute 'group'")
        return extract_info(self, url, **arguments)

    monkeypatch.setattr(yt_dlp.YoutubeDL, "extract_info", broken)
    report = download("--retries", 0)
    assert [report[video_stem(url)]["state"] for url in urls] == ["failed", "done"]
    assert "NoneType" in report[video_stem(urls[0])]["why"]


@pytest.mark.parametrize(
    ("message", "state", "is_final"),
    [
        ("[youtube] abcdefghijk: Private video. Sign in if you've been granted access to this video", "private", True),
        (
            "[youtube] abcdefghijk: Join this channel to get access to members-only content like this video",
            "private",
            True,
        ),
        ("[youtube] abcdefghijk: Sign in to confirm your age. This video may be inappropriate", "private", True),
        (
            "[youtube] abcdefghijk: Sign in to confirm you\u2019re not a bot. Use --cookies for the authentication",
            "failed",
            True,
        ),
        ("[youtube] abcdefghijk: Video unavailable", "gone", True),
        (
            "[youtube] abcdefghijk: This video is no longer available because the account has been terminated",
            "gone",
            True,
        ),
        ("[youtube] abcdefghijk: This video has been removed by the uploader", "gone", True),
        ("[youtube] abcdefghijk: This video isn't available anymore", "gone", True),
        ("[youtube] abcdefghijk: Video unavailable. This content isn't available, try again later.", "failed", True),
        ("[youtube] abcdefghijk: The uploader has not made this video available in your country", "failed", True),
        ("[youtube] abcdefghijk: Requested format is not available. Use --list-formats", "failed", True),
        ("[generic] Unable to download webpage: <urlopen error timed out> (caused by X)", "failed", False),
    ],
)
def test_what_sites_say(tmp_path: Path, message: str, state: str, is_final: bool) -> None:
    from yt_dlp.utils import DownloadError

    downloader = Downloader(tmp_path, DownloadOptions(root_dir="", out_dir=""))
    refused = downloader._explain(DownloadError(f"\x1b[0;31mERROR:\x1b[0m {message}"))
    assert (refused.state, refused.is_final) == (state, is_final)
    assert not re.search(r"\x1b|ERROR|youtube\]|abcdefghijk|caused by|--cookies", refused.why)


def video_format(name: str, height: int, vcodec: str, acodec: str = "none", ext: str = "mp4") -> dict:
    url = f"http://127.0.0.1:9/{name}"
    return {
        "format_id": name,
        "url": url,
        "height": height,
        "vcodec": vcodec,
        "acodec": acodec,
        "ext": ext,
        "protocol": "https",
    }


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (("avc1080", "avc360", "avc240", "both360", "vp9", "av1"), "avc360"),
        (("avc1080", "both360", "vp9", "av1"), "both360"),
        (("avc1080", "vp9", "av1"), "vp9"),
        (("avc1080", "av1"), None),
    ],
)
def test_choice_of_format(tmp_path: Path, names: tuple[str, ...], chosen: str | None) -> None:
    """H.264 without sound, not above the height; never AV1, which not every decoder has."""
    from yt_dlp import YoutubeDL
    from yt_dlp.utils import ExtractorError

    formats = {
        "avc1080": video_format("avc1080", 1080, "avc1.64"),
        "avc360": video_format("avc360", 360, "avc1.4d"),
        "avc240": video_format("avc240", 240, "avc1.4d"),
        "both360": video_format("both360", 360, "avc1.42", "mp4a.40"),
        "vp9": video_format("vp9", 360, "vp9", ext="webm"),
        "av1": video_format("av1", 360, "av01.0"),
        "sound": {**video_format("sound", 0, "none", "mp4a.40", "m4a"), "height": None},
    }
    info = {"id": "a", "title": "a", "extractor": "a", "formats": [formats[name] for name in (*names, "sound")]}
    downloader = Downloader(tmp_path, DownloadOptions(root_dir="", out_dir=""))
    with YoutubeDL(downloader._settings("a", tmp_path)) as session:
        if chosen is None:
            with pytest.raises(ExtractorError, match="format is not available"):
                session.process_video_result(info, download=False)
        else:
            assert session.process_video_result(info, download=False)["format_id"] == chosen


def test_broken_text_files_are_told(
    server: VideoServer, data: bytes, write_scene: Callable, download: Callable, tmp_path: Path, capsys
) -> None:
    write_scene("b", server.add("a.mp4", Reply(data)))
    (tmp_path / "cameras/a.txt").write_text("no address\n")
    assert len(download()) == 1
    assert re.search(r"1 text files name no video; the first: .*a\.txt, line 1: the address", capsys.readouterr().out)
    (tmp_path / "cameras/b.txt").unlink()
    with pytest.raises(InputError, match=r"none of 0 videos could be downloaded; .*a\.txt, line 1"):
        download()


def test_mannequin_challenge_has_the_same_form(tmp_path: Path) -> None:
    line = "54120733 0.9 1.6 0.5 0.5 0 0 1 0 0 0 0 1 0 0 0 0 1 0"
    (tmp_path / "a.txt").write_text(f"https://www.youtube.com/watch?v=abcdefghijk\n{line}\n")
    urls, errors = plan_downloads([tmp_path / "a.txt"])
    assert urls == {"abcdefghijk": "https://www.youtube.com/watch?v=abcdefghijk"}
    assert errors == []


def test_a_video_without_a_frame_is_none(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(InputError, match=r"sound\.mp4: "):
        check_video(tmp_path / "sound.mp4")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--height", "0"], "--height 0: at least 1"),
        (["--workers", "0"], "--workers 0: at least 1"),
        (["--limit", "0"], "--limit 0: at least 1"),
        (["--retries", "-1"], "--retries -1: at least 0"),
        (["--timeout", "0"], "--timeout 0: a number above 0"),
        (["--again", "failed"], "--again"),
        (["--cookies", "none.txt"], "none.txt: no such file; --cookies"),
        (["--root_dir", "none"], "none: no such folder"),
    ],
)
def test_bad_options(
    write_scene: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: list[str], message: str
) -> None:
    write_scene("a", "http://127.0.0.1:9/a.mp4")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=re.escape(message)):
        main(["--root_dir", "cameras", "--out_dir", "out", *arguments])
    assert not (tmp_path / "out").exists()


def test_as_a_program(run_program: Callable, call_program: Callable, write_scene: Callable, tmp_path: Path) -> None:
    """Nothing can be downloaded: one line, and the report has the reasons."""
    write_scene("a", "http://127.0.0.1:9/a.mp4")
    arguments = ["--root_dir", "cameras", "--out_dir", "out", *QUICK, "--retries", "0"]
    env = {"no_proxy": "127.0.0.1", "NO_PROXY": "127.0.0.1"}
    done = run_program("preprocessing/download_data.py", *arguments, cwd=tmp_path, env=env)
    done.check_input_error("downloads.jsonl: none of 1 videos could be downloaded", "refused")
    assert [entry["state"] for entry in report_of(tmp_path / "out").values()] == ["failed"]
    done = call_program("preprocessing/download_data.py", "--help", cwd=tmp_path)
    assert done.rc == 0
    assert "--min_free_gb" in done.stdout


def test_from_addresses_to_frames(
    made_realestate10k: MadeData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A made data set, served, downloaded and extracted, has the frames of its own videos."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serve_videos() as server:
        options = ExampleOptions(
            out_dir=str(tmp_path / "made"),
            num_videos=1,
            test_videos=0,
            clips_per_video=2,
            frames_per_clip=3,
            img_wh=(32, 16),
            url_prefix=server.address,
            device="cpu",
        )
        make_example_data(options)
        for path in (tmp_path / "made/served").iterdir():
            server.add(path.name, Reply(path.read_bytes()))
        main(["--root_dir", str(tmp_path / "made/cameras/train"), "--out_dir", str(tmp_path / "out"), *QUICK])
        assert server.requests.total() == 2
    for folder in ("made", "out"):
        folders = ["--root_dir", tmp_path / "made/cameras/train", "--video_dir", tmp_path / folder / "videos"]
        extract([str(word) for word in (*folders, "--out_dir", tmp_path / folder / "frames", "--img_wh", 32, 16)])
    frames = contents(tmp_path / "out/frames")
    assert frames == contents(tmp_path / "made/frames")
    assert sum(name.endswith(".jpg") for name in frames) == 6
