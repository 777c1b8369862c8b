"""Declared geometry, from files with the real boxes put in."""

import math
import struct
from pathlib import Path

import numpy as np
import pytest

from model.errors import UnsupportedMedia
from model.media import VideoReader
from model.media.encode import write_video
from model.media.spherical import UNDECLARED, read_spherical
from tests.model.media.boxes import (
    add_boxes,
    box,
    element,
    full_box,
    matroska_head,
    st3d,
    sv3d,
    v1_uuid,
)


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "take.mp4"
    write_video(path, np.zeros((5, 64, 128, 1), np.uint8), rate_hz=10)
    return path


def test_nothing_declared(video: Path) -> None:
    assert read_spherical(video) == UNDECLARED


def test_v2_boxes(video: Path) -> None:
    add_boxes(video, entry=st3d(1) + sv3d(yaw_deg=-30.5))

    spherical = read_spherical(video)

    assert (spherical.projection, spherical.stereo) == ("equirectangular", "top-bottom")
    assert not spherical.partial
    assert spherical.pose_deg == (-30.5, 0, 0)


def test_v2_wins_over_v1(video: Path) -> None:
    xml = "<GSpherical:Spherical>true</GSpherical:Spherical>"
    xml += "<GSpherical:ProjectionType>equirectangular</GSpherical:ProjectionType>"
    add_boxes(video, entry=sv3d(b"mshp"), track=v1_uuid(xml))

    assert read_spherical(video).projection == "mesh"


def test_v1_ignores_the_initial_view(video: Path) -> None:
    xml = "<GSpherical:Spherical> true </GSpherical:Spherical>"
    xml += "<GSpherical:StereoMode>left-right</GSpherical:StereoMode>"
    xml += "<GSpherical:InitialViewHeadingDegrees>90</GSpherical:InitialViewHeadingDegrees>"
    add_boxes(video, track=v1_uuid(xml))

    spherical = read_spherical(video)

    assert (spherical.stereo, spherical.pose_deg, spherical.source) == (
        "left-right",
        (0, 0, 0),
        "v1",
    )


def test_v1_crop_is_a_part_of_the_sphere(video: Path) -> None:
    xml = "<GSpherical:Spherical>true</GSpherical:Spherical>"
    xml += "<GSpherical:CroppedAreaImageWidthPixels>1920</GSpherical:CroppedAreaImageWidthPixels>"
    xml += "<GSpherical:FullPanoWidthPixels>3840</GSpherical:FullPanoWidthPixels>"
    add_boxes(video, track=v1_uuid(xml))

    with pytest.raises(UnsupportedMedia, match="VR180"):
        VideoReader(video)


@pytest.mark.parametrize("cropped", ["", "\u00b2", "9" * 5000, "-5", "3840"])
def test_v1_sizes_that_say_no_crop(video: Path, cropped: str) -> None:
    """Left out, or no number; these are what strangers wrote."""
    xml = "<GSpherical:Spherical>true</GSpherical:Spherical>"
    xml += "<GSpherical:FullPanoWidthPixels>3840</GSpherical:FullPanoWidthPixels>"
    name = "GSpherical:CroppedAreaImageWidthPixels"
    xml += f"<{name}>{cropped}</{name}>" if cropped else ""
    add_boxes(video, track=v1_uuid(xml))

    assert not read_spherical(video).partial


def test_v2_may_leave_the_pose_out(video: Path) -> None:
    add_boxes(video, entry=box(b"sv3d", box(b"proj", full_box(b"equi", bytes(16)))))

    spherical = read_spherical(video)

    assert (spherical.projection, spherical.pose_deg) == ("equirectangular", (0, 0, 0))


@pytest.mark.parametrize(
    ("boxes", "words"),
    [
        (sv3d(b"cbmp"), "cubemap projection.*v360=c3x2:equirect"),
        (sv3d(b"mshp"), "mesh projection.*v360=eac:equirect"),
        (sv3d(b"ytmp"), "eac projection.*v360=eac:equirect"),
        (sv3d(bounds=(0, 0, 1 << 30, 1 << 30)), "VR180.*v360=hequirect:equirect"),
        (sv3d(b"zzzz"), "zzzz projection"),
        (st3d(3) + sv3d(), "custom stereo"),
    ],
    ids=["cubemap", "mesh", "eac", "vr180", "unknown", "custom stereo"],
)
def test_what_is_not_read_is_refused_by_name(video: Path, boxes: bytes, words: str) -> None:
    add_boxes(video, entry=boxes)

    with pytest.raises(UnsupportedMedia, match=words):
        VideoReader(video)


def test_the_file_still_decodes_with_the_boxes_in(video: Path) -> None:
    add_boxes(video, entry=st3d(0) + sv3d(yaw_deg=10))

    with VideoReader(video) as reader:
        assert reader.info.pose_yaw_deg == 10
        assert len(reader.read(0, 1, size=(8, 16)).frames) == 5


def test_matroska_projection(tmp_path: Path) -> None:
    pose = element(0x7673, struct.pack(">f", 45.0)) + element(0x7674, struct.pack(">d", -5.0))
    video = element(0x53B8, b"\x03") + element(0x7670, element(0x7671, b"\x01") + pose)
    path = tmp_path / "take.mkv"
    path.write_bytes(matroska_head(video))

    spherical = read_spherical(path)

    assert (spherical.projection, spherical.stereo) == ("equirectangular", "top-bottom")
    assert spherical.pose_deg == (45.0, -5.0, 0.0)


def test_each_video_track_declares_its_own(tmp_path: Path) -> None:
    first, second = (
        element(0xAE, element(0xE0, element(0x7670, element(0x7671, bytes([number])))))
        for number in (0, 1)
    )
    sound = element(0xAE, element(0xE1, b""))
    path = tmp_path / "take.mkv"
    path.write_bytes(
        element(0x1A45DFA3, b"") + element(0x18538067, element(0x1654AE6B, first + sound + second))
    )

    found = [read_spherical(path, nth).projection for nth in range(3)]

    assert found == ["rectilinear", "equirectangular", "undeclared"]


@pytest.mark.parametrize("yaw", [math.nan, -math.inf, 1e300])
def test_a_matroska_pose_that_is_no_angle_is_none(tmp_path: Path, yaw: float) -> None:
    pose = element(0x7673, struct.pack(">d", yaw)) + element(0x7674, b"")
    video = element(0x7670, element(0x7671, b"\x01") + pose)
    path = tmp_path / "take.mkv"
    path.write_bytes(matroska_head(video))

    assert read_spherical(path).pose_deg == (0, 0, 0)


@pytest.mark.parametrize(("number", "name"), [(2, "cubemap"), (3, "mesh"), (0, "rectilinear")])
def test_other_matroska_projections(tmp_path: Path, number: int, name: str) -> None:
    path = tmp_path / "take.webm"
    path.write_bytes(matroska_head(element(0x7670, element(0x7671, bytes([number])))))

    assert read_spherical(path).projection == name


def test_a_matroska_track_that_says_nothing_is_undeclared(tmp_path: Path) -> None:
    """So that the frame's shape tells what it is."""
    path = tmp_path / "a.mkv"
    path.write_bytes(matroska_head(b""))
    assert read_spherical(path) == UNDECLARED


@pytest.mark.parametrize("length", range(0, 2000, 97))
def test_broken_headers_declare_nothing_and_do_not_crash(video: Path, length: int) -> None:
    add_boxes(video, entry=sv3d(b"cbmp"))
    video.write_bytes(video.read_bytes()[:length])

    read_spherical(video)


@pytest.mark.needs("shared-data")
def test_real_files(shared_data: Path) -> None:
    folder = shared_data / "training" / "video360"

    assert read_spherical(folder / "congo_1024.mp4").stereo == "top-bottom"
    assert read_spherical(folder / "sphericalv2.mp4").projection == "mesh"
    assert read_spherical(folder / "richoh1_0_3.mp4") == UNDECLARED
