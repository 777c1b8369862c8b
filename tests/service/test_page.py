"""The page, used as a person uses it, in a real Chromium."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import httpx
import pytest
from playwright.sync_api import Dialog, Page, Route, expect

from tests.service.browser import opened
from tests.service.conftest import Server
from training.data.takes import TakeFiles

pytestmark = pytest.mark.needs("chromium")
# Everything that the page may say, at once.
ALL_SHOWN = """() => {
  const $ = (id) => document.getElementById(id);
  for (const id of ["door", "error", "door-error", "status", "cancel"]) $(id).hidden = false;
  $("results").append($("result").content.cloneNode(true));
  document.querySelector(".notes").append(document.createElement("li"));
  const empty = "#error, #door-error, #stage, .result :empty:not(img)";
  for (const element of document.querySelectorAll(empty)) element.textContent = "Words";
  document.querySelector("details").open = true;
}"""
# Of all text that is shown and not switched off: what it stands in, and its contrast.
CONTRASTS = """() => {
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (colour) => numbers(colour).slice(0, 3).map((c) => c / 255)
    .map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    const colour = getComputedStyle(element).backgroundColor;
    return numbers(colour)[3] === 0 ? behind(element.parentElement) : colour;
  };
  const written = (element) => [...element.childNodes].some(
    (node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
  return [...document.body.querySelectorAll("*")]
    .filter((element) => written(element) && element.checkVisibility() && !element.disabled)
    .map((element) => {
      const pair = [light(getComputedStyle(element).color), light(behind(element))];
      const ratio = (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
      return [element.outerHTML.slice(0, 80), ratio];
    });
}"""

# From now on, all that is written where a screen reader listens while the page is busy.
WRITTEN = """() => {
  window.read = [];
  const live = document.querySelector("#status[aria-live], #status [aria-live]");
  const note = () => window.read.push(live.innerText);
  new MutationObserver(note).observe(live, { childList: true, characterData: true, subtree: true });
}"""
# Drop files, or none but a text, on an element: how many are chosen as the video, what is said of
# them, and whether the browser would open them.
DROPPED = """([selector, names]) => {
  const data = new DataTransfer();
  for (const name of names) data.items.add(new File(["x"], name));
  if (!names.length) data.setData("text/plain", "a text");
  const how = { dataTransfer: data, bubbles: true, cancelable: true };
  const opened = document.querySelector(selector).dispatchEvent(new DragEvent("drop", how));
  const chosen = document.querySelector("#drop-video .chosen").textContent;
  return [document.getElementById("video").files.length, chosen, opened];
}"""


@pytest.fixture(scope="module")
def page(server: Server) -> Iterator[Page]:
    """One page for all tests of a process, which may run any of them: each chooses its files."""
    with opened(server.url) as page:
        yield page


@pytest.fixture(autouse=True)
def _nothing_stays_in_the_way(page: Page) -> Iterator[None]:
    yield
    page.unroute_all()


def test_a_take_is_aligned_on_the_page(page: Page, take: TakeFiles, tmp_path: Path) -> None:
    page.set_input_files("#video", take.video)
    page.set_input_files("#audio", take.audio)
    expect(page.locator("#drop-audio .chosen")).to_have_text("take.wav")
    page.click("#start")
    expect(page.locator("#start")).to_be_disabled()
    expect(page.locator("#bar")).to_be_visible()

    expect(page.get_by_role("progressbar", name=re.compile(r"\(\d+ %\)"))).to_be_visible()

    result = page.locator(".result")
    expect(result.locator(".verdict")).to_have_text("misaligned", timeout=90_000)
    expect(result.locator(".words")).to_contain_text("to the left (counter-clockwise)")
    turned = re.compile(r"IEM SceneRotator \+(\S+)°, .*SPARTA Rotator -\1°")
    expect(result.locator(".notes")).to_contain_text(turned)
    page.wait_for_function("document.querySelector('.plot').naturalWidth > 600")
    page.wait_for_function("document.querySelector('.preview').duration > 5")
    with page.expect_download() as download:
        result.locator("a.audio").click()
    download.value.save_as(tmp_path / "out.wav")

    assert download.value.suggested_filename == "take_aligned.wav"
    assert (tmp_path / "out.wav").stat().st_size > take.audio.stat().st_size
    expect(page.locator("#start")).to_be_enabled()
    expect(page.locator("#status")).to_be_hidden()


def test_what_is_written_can_be_read(page: Page) -> None:
    """At 4.5 to 1 or more, as WCAG 2.2 asks of small text; with a result, of every verdict."""
    page.evaluate(ALL_SHOWN)
    schemes: tuple[Literal["light", "dark"], ...] = ("light", "dark")
    for scheme in schemes:
        page.emulate_media(color_scheme=scheme)
        for verdict in ("aligned", "misaligned", "undecidable"):
            page.evaluate(f"document.querySelector('.verdict').className = 'verdict {verdict}'")
            ratios = page.evaluate(CONTRASTS)
            assert len(ratios) > 25
            assert [one for one in ratios if one[1] < 4.5] == [], scheme
    page.reload()


@pytest.mark.parametrize("width", [360, 800, 1100])
def test_nothing_reaches_beyond_what_holds_it(page: Page, width: int) -> None:
    """Whatever the words: names and ids may be long and without a place to break."""
    size = page.viewport_size
    page.set_viewport_size({"width": width, "height": 700})
    page.reload()
    page.evaluate(ALL_SHOWN)
    page.evaluate("""() => {
      const texts = "#error, #of, .chosen, .name, .words, .notes li";
      for (const one of document.querySelectorAll(texts)) one.textContent = "take_".repeat(30);
    }""")
    beyond: list[str] = page.evaluate("""() => [...document.querySelectorAll("main *")]
      .filter((one) => one.checkVisibility() && !one.matches("[type=file]"))
      .filter((one) => one.getBoundingClientRect().right
                       > one.parentElement.getBoundingClientRect().right + 0.5)
      .map((one) => one.outerHTML.slice(0, 80))""")
    assert beyond == []
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert size is not None
    page.set_viewport_size(size)
    page.reload()


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
    page.set_input_files("#video", take.video)
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


def test_of_several_tracks_each_is_shown_by_its_name(
    page: Page, take: TakeFiles, tmp_path: Path
) -> None:
    (tmp_path / "text.wav").write_text("no sound " * 100)
    page.set_input_files("#video", take.video)
    page.set_input_files("#audio", [tmp_path / "text.wav", take.audio])
    page.click("#start")

    expect(page.locator(".result .name")).to_have_text(
        ["text.wav", "take_aligned.wav"], timeout=90_000
    )
    expect(page.locator(".verdict")).to_have_text(["Failed", "misaligned"])
    expect(page.locator(".words").first).to_contain_text("text.wav cannot be read")


def test_of_several_tracks_that_fail_each_is_explained(
    page: Page, take: TakeFiles, tmp_path: Path
) -> None:
    for name in ("one.wav", "other.wav"):
        (tmp_path / name).write_text("no sound " * 100)
    page.set_input_files("#video", take.video)
    page.set_input_files("#audio", [tmp_path / "one.wav", tmp_path / "other.wav"])
    page.click("#start")

    expect(page.locator(".verdict")).to_have_text(["Failed", "Failed"], timeout=90_000)
    for index, name in enumerate(("one.wav", "other.wav")):
        expect(page.locator(".words").nth(index)).to_contain_text(f"{name} cannot be read")
    expect(page.locator("#start")).to_be_enabled()


def test_a_report_that_cannot_be_had_is_told(page: Page, take: TakeFiles) -> None:
    page.set_input_files("#video", take.video)
    page.set_input_files("#audio", take.audio)
    page.route("**/report.json*", lambda route: route.abort(), times=1)
    expect(page.locator("#start")).to_be_enabled()
    page.click("#start")
    reached = "The service cannot be reached."
    expect(page.locator("#error")).to_have_text(reached, timeout=90_000)
    expect(page.locator("#start")).to_be_enabled()


def test_a_page_that_is_loaded_again_finds_its_job(
    page: Page, server: Server, take: TakeFiles
) -> None:
    page.goto(server.url)
    page.set_input_files("#video", take.video)
    page.set_input_files("#audio", take.audio)
    with page.expect_response("**/align") as sent:
        page.click("#start")
    job_id = sent.value.headers["location"].rsplit("/", 1)[1]
    page.wait_for_url(f"{server.url}/#{job_id}")

    page.reload()
    expect(page.locator("#of")).to_have_text("take.wav")
    expect(page.locator(".verdict")).to_have_text("misaligned", timeout=90_000)
    page.reload()  # also when it has ended
    expect(page.locator(".verdict")).to_have_text("misaligned", timeout=90_000)

    assert httpx.delete(f"{server.url}/jobs/{job_id}").status_code == 204
    page.reload()
    expect(page.locator("#error")).to_contain_text(f"There is no job {job_id};", timeout=90_000)
    expect(page.locator("#start")).to_be_enabled()
    page.click("#start")  # what fails before it is a job has no address
    expect(page.locator("#error")).to_have_text("Choose a 360° video first.")


def test_leaving_within_an_upload_is_asked_about(
    page: Page, server: Server, take: TakeFiles
) -> None:
    page.goto(server.url)
    page.set_input_files("#video", take.video)
    page.route("**/uploads/*", lambda _: None)
    page.click("#start")
    asked: list[str] = []

    def stay(dialog: Dialog) -> None:
        asked.append(dialog.type)
        dialog.dismiss()

    page.once("dialog", stay)
    page.evaluate("setTimeout(() => location.reload())")
    page.wait_for_timeout(500)
    assert asked == ["beforeunload"]
    page.click("#cancel")  # the page is there still
    expect(page.locator("#error")).to_have_text("Cancelled.")
    page.unroute("**/uploads/*")
    page.reload()  # and nothing is asked


LONG_TAKE = {"name": "long.mp4", "mimeType": "video/mp4", "buffer": bytes(20 << 20)}
PIECE = 8 << 20


def test_where_the_network_drops_a_piece_is_sent_again_and_not_the_whole(page: Page) -> None:
    sent: list[tuple[str, str]] = []

    def drop_the_second(route: Route) -> None:
        sent.append((route.request.method, route.request.headers.get("upload-offset", "")))
        if len(sent) == 2:
            route.abort()
        else:
            route.continue_()

    page.reload()
    page.set_input_files("#video", LONG_TAKE)  # type: ignore[arg-type]
    page.route("**/uploads/*", drop_the_second)
    page.click("#start")
    expect(page.locator("#error")).to_contain_text("long.mp4", timeout=90_000)  # it is no take
    assert sent == [("PATCH", str(at)) for at in (0, PIECE, PIECE, 2 * PIECE)]

    page.click("#start")  # all of it is there
    expect(page.locator("#error")).to_be_hidden()
    expect(page.locator("#error")).to_contain_text("long.mp4", timeout=90_000)
    assert [method for method, _ in sent[4:]] == ["HEAD"]
    page.unroute("**/uploads/*")


def test_a_job_whose_answer_is_lost_is_the_only_one(
    page: Page, server: Server, take: TakeFiles
) -> None:
    def jobs() -> int:
        return len(httpx.get(f"{server.url}/jobs?limit=200").json()["jobs"])

    def lose(route: Route) -> None:
        route.fetch()
        route.abort()

    page.reload()
    page.set_input_files("#video", take.video)
    before = jobs()
    page.route("**/align", lose, times=1)
    page.click("#start")
    expect(page.locator("#stage")).to_have_text("Waiting for the service")
    expect(page.locator("#start")).to_be_enabled(timeout=90_000)
    assert jobs() == before + 1


def test_what_is_to_come_again_comes_again(page: Page, take: TakeFiles) -> None:
    """As where the first sending of the request is still being read."""
    read = {"code": "request_in_flight", "detail": "It is being read."}
    again = {"Retry-After": "2"}
    page.route("**/align", lambda route: route.fulfill(status=409, json=read, headers=again),
               times=1)  # fmt: skip
    page.reload()
    page.set_input_files("#video", take.video)
    with page.expect_response(lambda answer: answer.status == 202):
        page.click("#start")
    expect(page.locator("#start")).to_be_enabled(timeout=90_000)


def test_a_cancel_before_the_job_is_known_leaves_none_to_run(
    page: Page, server: Server, take: TakeFiles
) -> None:
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    page.reload()
    page.set_input_files("#video", take.video)
    page.set_input_files("#audio", take.audio)  # without, the job may fail before it is cancelled
    page.route("**/align", hold, times=1)
    with page.expect_request("**/align"):
        page.click("#start")
    page.click("#cancel")
    held[0].continue_()
    expect(page.locator("#error")).to_have_text("Cancelled.", timeout=90_000)
    newest = httpx.get(f"{server.url}/jobs?limit=1").json()["jobs"][0]
    assert newest["state"] == "cancelled"


def test_a_stage_is_read_out_once(page: Page, take: TakeFiles) -> None:
    """And not at every percent: what is live is written only where it changes."""
    page.reload()
    page.set_input_files("#video", take.video)
    page.set_input_files("#audio", take.audio)
    page.evaluate(WRITTEN)
    page.click("#start")
    expect(page.locator(".verdict")).to_have_text("misaligned", timeout=90_000)

    read: list[str] = page.evaluate("window.read")
    assert len(read) > 2
    assert all(one != following for one, following in itertools.pairwise(read)), read
    assert not [text for text in read if "%" in text]


def test_a_job_is_cancelled(page: Page, server: Server, take: TakeFiles) -> None:
    """While others are before it, so that it cannot end by itself first."""
    files = {"video": take.video.read_bytes(), "audio": take.audio.read_bytes()}
    sent = {kind: (f"take.{kind}", data) for kind, data in files.items()}
    before = [httpx.post(f"{server.url}/align", files=sent).json()["id"] for _ in range(4)]
    page.set_input_files("#video", take.video)
    page.set_input_files("#audio", take.audio)
    page.click("#start")
    page.locator("#stage", has_text="Waiting for a worker").wait_for()
    busy = {"code": "table_unreachable", "detail": "The job table is out of reach."}
    page.route("**/cancel", lambda route: route.fulfill(status=503, json=busy), times=1)
    page.click("#cancel")
    expect(page.locator("#error")).to_have_text(busy["detail"])
    page.click("#cancel")

    expect(page.locator("#error")).to_have_text("Cancelled.", timeout=90_000)
    expect(page.locator("#start")).to_be_enabled()
    for job_id in before:
        httpx.post(f"{server.url}/jobs/{job_id}/cancel")


def test_by_keyboard_alone(page: Page, take: TakeFiles) -> None:
    """The button that is pressed gives way to another, and the focus goes with it."""
    page.reload()
    page.set_input_files("#video", take.video)
    page.set_input_files("#audio", take.audio)
    page.locator("summary").focus()
    page.keyboard.press("Tab")
    expect(page.locator("#start")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#cancel")).to_be_focused()
    page.keyboard.press("Enter")

    expect(page.locator("#error")).to_have_text("Cancelled.", timeout=90_000)
    expect(page.locator("#start")).to_be_focused()


def test_a_jobs_address_is_followed_in_the_tab_that_is_open(page: Page, server: Server) -> None:
    page.goto(server.url)
    page.goto(f"{server.url}/#{'0' * 32}")  # which loads nothing by itself
    expect(page.locator("#error")).to_contain_text(f"There is no job {'0' * 32};")
    page.goto(f"{server.url}/#")
    expect(page.locator("#error")).to_be_hidden()


def test_the_interfaces_page_fits_a_narrow_window(page: Page, server: Server) -> None:
    context = page.context.browser
    assert context is not None
    phone = context.new_page(viewport={"width": 375, "height": 700}, is_mobile=True)
    phone.goto(f"{server.url}/docs/")
    phone.locator(".opblock").first.wait_for()
    assert phone.evaluate("innerWidth") == 375
    phone.close()


def test_options_reach_the_report(page: Page, server: Server, take: TakeFiles) -> None:
    page.reload()
    page.set_input_files("#video", take.video)
    page.set_input_files("#audio", take.audio)
    page.click("summary")
    page.select_option("#fix", "mirror")
    page.select_option("#method", "evidence")
    page.check("#follow")
    page.fill("#offset", "0.5")
    page.fill("#turn", "-37.5")
    page.click("#start")

    expect(page.locator(".result")).to_have_count(1, timeout=90_000)
    # Mirrored, whatever the verdict: it is not what was sent.
    expect(page.locator("a.audio")).to_have_text("Download the corrected track")
    newest = httpx.get(f"{server.url}/jobs?limit=1").json()["jobs"][0]["id"]
    report = httpx.get(f"{server.url}/jobs/{newest}/report.json").json()
    assert report["fix"] == "mirror"
    assert report["model"]["scorer_sha256"] is None
    assert report["trajectory"]["kind"]
    assert report["input"]["audio"]["offset_s"] == 0.5
    assert report["output"]["applied_deg"] == -37.5


def test_nothing_is_sent_without_a_video(page: Page) -> None:
    """The form answers at once, while it is still asked whether a key is needed."""
    asked: list[Route] = []

    def hold(route: Route) -> None:
        asked.append(route)

    page.route("**/jobs?limit=1", hold)
    page.reload()
    page.click("#start")

    expect(page.locator("#error")).to_have_text("Choose a 360° video first.")
    assert len(asked) == 1
    asked[0].continue_()
    page.unroute("**/jobs?limit=1")


def test_what_is_dropped(page: Page) -> None:
    page.reload()
    dropped = page.evaluate(DROPPED, ["#drop-video", ["take.mp4"]])
    assert dropped == [1, "take.mp4", False]
    for several in ("take.mp4", "other.mp4"), ("take.mp4", "take.wav", "other.wav"):
        assert page.evaluate(DROPPED, ["#drop-video", several]) == dropped
        expect(page.locator("#error")).to_contain_text(f"one file here, and not {len(several)}")
    assert page.evaluate(DROPPED, ["#drop-video", []]) == dropped
    assert page.evaluate(DROPPED, ["h1", ["beside.mp4"]]) == dropped  # missed: nothing is opened
    assert page.evaluate(DROPPED, ["#offset", []])[2]  # a text may go into a field
    page.evaluate(DROPPED, ["#drop-audio", ["one.wav", "two.wav"]])
    expect(page.locator("#drop-audio .chosen")).to_have_text("one.wav, two.wav")


def test_a_folder_that_is_dropped_is_no_file(page: Page, tmp_path: Path) -> None:
    """A browser passes it on as one, of some bytes that cannot be read."""
    (tmp_path / "takes").mkdir()
    page.reload()
    box = page.locator("#drop-audio").bounding_box()
    assert box is not None
    data = {"items": [], "files": [str(tmp_path / "takes")], "dragOperationsMask": 1}
    where = {"x": box["x"] + 9, "y": box["y"] + 9, "data": data}
    browser = page.context.new_cdp_session(page)
    for kind in ("dragEnter", "dragOver", "drop"):
        browser.send("Input.dispatchDragEvent", {"type": kind, **where})
    expect(page.locator("#error")).to_contain_text("takes is a folder")
    assert page.evaluate("document.getElementById('audio').files.length") == 0


@pytest.mark.parametrize("field", ["#offset", "#turn"])
def test_what_is_no_number_is_told(page: Page, take: TakeFiles, field: str) -> None:
    page.reload()
    page.set_input_files("#video", take.video)
    page.click("summary")
    page.locator(field).press_sequentially("1e")
    page.click("#start")

    expect(page.locator("#error")).to_contain_text("is no number")
    expect(page.locator("#start")).to_be_enabled()


def test_the_cookie_of_a_key_that_is_no_more_shuts_nobody_out(page: Page, server: Server) -> None:
    page.context.add_cookies([{"name": "avsa_key", "value": "avsa_stale", "url": server.url}])
    with page.expect_response("**/jobs?limit=1") as asked:
        page.reload()
    assert asked.value.status == 200
    expect(page.locator("#form")).to_be_visible()
    expect(page.locator("#door")).to_be_hidden()
    page.context.clear_cookies()
    bearer = {"Authorization": "Bearer avsa_stale"}
    assert httpx.get(f"{server.url}/jobs", headers=bearer).status_code == 401
