"""Lenses from pictures of chessboards."""

from __future__ import annotations

import lens_helpers
import numpy as np
import pytest
from board_helpers import write_boards
from lens_helpers import make_lens

from data_tools.undistort import main
from maskvolume.io.calibrations import read_calibration
from maskvolume.io.images import write_image
from maskvolume.runtime.errors import InputError


@pytest.mark.parametrize("kind", ["barrel", "fisheye"])
def test_calibration_from_boards(tmp_path, kind, capsys):
    truth = make_lens(kind, (180, 240))
    write_boards(tmp_path / "boards/cam00", truth)
    write_image(tmp_path / "boards/cam00/100.png", np.full((180, 240, 3), 200, np.uint8))
    options = ["--board", "7", "5", "--square", "0.03", "--model", truth.model, "--out_dir", str(tmp_path / "out")]
    main([str(tmp_path / "boards"), *options])
    out = capsys.readouterr().out
    assert "100.png: no board of 7 x 5 inner corners" in out
    assert "reprojection error 0." in out
    assert "boards in 8 of 9 pictures" in out
    lens = read_calibration(tmp_path / "out/calibration/cam00.json")
    assert (lens.model, lens.size) == (truth.model, truth.size)
    # A tenth of a percent; without the half pixel the principal point would be off by more than it is.
    np.testing.assert_allclose(lens.K, truth.K, rtol=2e-3, atol=0.2)
    # What it is for: rays of the picture.
    pixels = np.stack(np.meshgrid(np.linspace(60, 180, 7), np.linspace(50, 130, 5)), axis=-1)
    off = lens_helpers.undistort(lens, pixels) - lens_helpers.undistort(truth, pixels)
    assert np.abs(off - off.mean(axis=(0, 1))).max() * truth.K[0, 0] < 0.3  # a shift of all is a turn of the camera

    before = (tmp_path / "out/calibration/cam00.json").stat().st_mtime_ns
    main([str(tmp_path / "boards"), *options])
    assert "kept; --overwrite" in capsys.readouterr().out
    assert (tmp_path / "out/calibration/cam00.json").stat().st_mtime_ns == before


def test_boards_that_do_not_tell_the_lens(tmp_path):
    lens = make_lens("barrel", (180, 240))
    write_boards(tmp_path / "few/cam00", lens, count=2)
    with pytest.raises(InputError, match="cam00: a board of 7 x 5 inner corners in 2 of 2 pictures, at least 3"):
        main([str(tmp_path / "few"), "--board", "7", "5", "--out_dir", str(tmp_path / "out")])
    write_boards(tmp_path / "flat/cam00", lens, count=4, tilt=1e-6)
    with pytest.raises(InputError, match=r"cam00: the boards (are too similar|do not determine the lens).*tilted"):
        main([str(tmp_path / "flat"), "--board", "7", "5", "--out_dir", str(tmp_path / "out")])
    write_image(tmp_path / "few/cam00/9.png", np.zeros((20, 20, 3), np.uint8))
    with pytest.raises(InputError, match=r"9\.png: 20 x 20 pixels, but 000\.png has 240 x 180"):
        main([str(tmp_path / "few"), "--board", "7", "5", "--out_dir", str(tmp_path / "out")])
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="none: holds no picture"):
        main([str(tmp_path / "none"), "--board", "7", "5", "--out_dir", str(tmp_path / "out")])
    write_image(tmp_path / "few/0.png", np.zeros((20, 20, 3), np.uint8))
    with pytest.raises(InputError, match="few: holds pictures and folders with pictures"):
        main([str(tmp_path / "few"), "--board", "7", "5", "--out_dir", str(tmp_path / "out")])
    with pytest.raises(InputError, match="gone: no such folder"):
        main([str(tmp_path / "gone"), "--board", "7", "5", "--out_dir", str(tmp_path / "out")])
