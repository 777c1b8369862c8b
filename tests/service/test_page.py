"""The page, used as a person uses it, in a real Chromium."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.service.browser import opened
from tests.service.conftest import Server
from training.data.takes import TakeFiles

pytestmark = pytest.mark.needs("chromium")


@pytest.fixture(scope="module")
def page(server: Server) -> Iterator[Page]:
    with opened(server.url) as page:
        yield page


def test_a_take_is_aligned_on_the_page(page: Page, take: TakeFiles, tmp_path: Path) -> None:
    page.set_input_files("#video", take.video)
    page.set_input_files("#audio", take.audio)
    expect(page.locator("#drop-audio .chosen")).to_have_text("take.wav")
    page.click("#start")
    expect(page.locator("#start")).to_be_disabled()
    expect(page.locator("#bar")).to_be_visible()

    result = page.locator(".result")
    expect(result.locator(".verdict")).to_have_text("misaligned", timeout=90_000)
    expect(result.locator(".words")).to_contain_text("to the left (counter-clockwise)")
    page.wait_for_function("document.querySelector('.plot').naturalWidth > 600")
    with page.expect_download() as download:
        result.locator("a.audio").click()
    download.value.save_as(tmp_path / "out.wav")

    assert download.value.suggested_filename == "take_aligned.wav"
    assert (tmp_path / "out.wav").stat().st_size > take.audio.stat().st_size
    expect(page.locator("#start")).to_be_enabled()
    expect(page.locator("#status")).to_be_hidden()


def test_a_bad_file_is_explained(page: Page, take: TakeFiles, tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("no sound " * 100)
    page.set_input_files("#video", take.video)
    page.set_input_files("#audio", tmp_path / "text.wav")
    page.click("#start")

    expect(page.locator("#error")).to_contain_text("text.wav cannot be read", timeout=90_000)
    expect(page.locator(".result")).to_have_count(0)


def test_a_refused_stream_of_events_is_made_up_for(
    page: Page, server: Server, take: TakeFiles
) -> None:
    """A browser gives up on an answer that is no stream, as a proxy gives one for a while."""
    this_job = re.compile(r"/jobs/[0-9a-f]{32}$")
    gone = {"code": "job_not_found", "detail": "There is no such job any more."}
    page.set_input_files("#audio", take.audio)
    page.route("**/events", lambda route: route.fulfill(status=503))
    page.route(this_job, lambda route: route.fulfill(status=404, json=gone))
    page.route(this_job, lambda route: route.fulfill(status=502), times=1)
    page.click("#start")
    expect(page.locator("#error")).to_have_text(gone["detail"], timeout=90_000)
    expect(page.locator("#start")).to_be_enabled()

    page.unroute(this_job)
    page.click("#start")
    expect(page.locator(".verdict")).to_have_text("misaligned", timeout=90_000)
    page.unroute("**/events")


def test_a_report_that_cannot_be_had_is_told(page: Page, take: TakeFiles) -> None:
    page.set_input_files("#audio", take.audio)
    page.route("**/report.json*", lambda route: route.abort(), times=1)
    expect(page.locator("#start")).to_be_enabled()
    page.click("#start")
    reached = "The service cannot be reached."
    expect(page.locator("#error")).to_have_text(reached, timeout=90_000)
    expect(page.locator("#start")).to_be_enabled()


def test_a_job_is_cancelled(page: Page, server: Server, take: TakeFiles) -> None:
    """While others are before it, so that it cannot end by itself first."""
    files = {"video": take.video.read_bytes(), "audio": take.audio.read_bytes()}
    sent = {kind: (f"take.{kind}", data) for kind, data in files.items()}
    before = [httpx.post(f"{server.url}/align", files=sent).json()["id"] for _ in range(4)]
    page.set_input_files("#audio", take.audio)
    page.click("#start")
    page.locator("#stage", has_text="Waiting for a worker").wait_for()
    page.click("#cancel")

    expect(page.locator("#error")).to_have_text("Cancelled.", timeout=90_000)
    expect(page.locator("#start")).to_be_enabled()
    for job_id in before:
        httpx.post(f"{server.url}/jobs/{job_id}/cancel")


def test_options_reach_the_report(page: Page, server: Server, take: TakeFiles) -> None:
    page.reload()
    page.set_input_files("#video", take.video)
    page.set_input_files("#audio", take.audio)
    page.click("summary")
    page.select_option("#fix", "mirror")
    page.select_option("#method", "evidence")
    page.check("#follow")
    page.fill("#offset", "0.5")
    page.click("#start")

    expect(page.locator(".result")).to_have_count(1, timeout=90_000)
    newest = httpx.get(f"{server.url}/jobs?limit=1").json()["jobs"][0]["id"]
    report = httpx.get(f"{server.url}/jobs/{newest}/report.json").json()
    assert report["fix"] == "mirror"
    assert report["model"]["scorer_sha256"] is None
    assert report["trajectory"]["kind"]
    assert report["input"]["audio"]["offset_s"] == 0.5


def test_nothing_is_sent_without_a_video(page: Page) -> None:
    page.reload()
    page.click("#start")

    expect(page.locator("#error")).to_have_text("Choose a 360° video first.")
