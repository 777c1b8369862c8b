// Upload, watch, show. Everything the page does, a tool can do over the same HTTP interface.

import { UNREACHABLE, json, sentence } from "./answers.js";
import { letIn, refusal } from "./door.js";
import { choosing } from "./files.js";
import { drop, insist, send } from "./upload.js";

const PAUSE_S = 2;
const WAITING = "Waiting for the service";
const NO_NUMBER = {
  offset: "The time at which the track begins is no number: write seconds, such as 1.5.",
  turn: "The rotation to turn by is no number: write degrees, such as -37.5.",
};
const $ = (id) => document.getElementById(id);
let job = null;
let sending = null;  // what ends it, while files or the order are on their way
let ordered = {};    // what was asked for last and not answered yet, and its key

for (const kind of ["video", "audio"]) choosing($(kind), $(`drop-${kind}`), fail);

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  if (!$("video").files.length) { fail("Choose a 360° video first."); return; }
  for (const [id, sentence] of Object.entries(NO_NUMBER)) {
    if ($(id).validity.badInput) { fail(sentence); return; }
  }
  see(submit);
});

// A job from its beginning to its end. Its id stays in the address, so that whoever loads the page
// again, or follows a link to it, finds the job where it stands.
async function see(begin) {
  $("results").replaceChildren();
  $("error").hidden = true;
  history.replaceState(null, "", location.pathname);
  busy(true);
  try {
    job = await begin();
    history.replaceState(null, "", `#${job.id}`);
    await watch(job.id);
  } catch (error) {
    fail(error.message);
  } finally {
    busy(false);
    job = sending = null;
  }
}

// What has not arrived yet is lost with the page; the browser asks first.
addEventListener("beforeunload", (event) => { if (sending && !job) event.preventDefault(); });

$("cancel").addEventListener("click", async () => {
  if (!job) {
    show("Cancelling", null);
    sending?.abort();
    return;
  }
  const answer = await fetch(`/jobs/${job.id}/cancel`, { method: "POST" }).catch(() => null);
  if (!answer?.ok) fail(answer ? await sentence(answer) : UNREACHABLE);
});

function options() {
  const chosen = {
    convention: $("convention").value,
    fix: $("fix").value || null,
    method: $("method").value,
    follow: $("follow").checked,
    float_output: $("float").checked,
    apply_undecided: $("apply").checked,
    preview: true,
  };
  if ($("offset").value !== "") chosen.offset_s = Number($("offset").value);
  if ($("turn").value !== "") chosen.apply_deg = Number($("turn").value);
  return chosen;
}

async function submit() {
  sending = new AbortController();
  const { signal } = sending;
  const files = [$("video").files[0], ...$("audio").files];
  const total = files.reduce((sum, file) => sum + file.size, 0);
  const chosen = options();
  const uploads = [];
  let before = 0;
  try {
    for (const file of files) {
      const tell = (at) => at === null ? show(WAITING, null) : show("Uploading", (before + at) / total);
      uploads.push({ upload: await send(file, signal, tell) });
      before += file.size;
    }
    const [video, ...audio] = uploads;
    const made = await order(JSON.stringify({ video, audio, options: chosen }), signal);
    const cancel = () => fetch(`/jobs/${made.id}/cancel`, { method: "POST" });
    if (signal.aborted) await insist(cancel, signal, () => show(WAITING, null), true);
    return made;
  } finally {
    if (signal.aborted) drop(files);
  }
}

// The job that a request is. Sent again, also by another click, until it is answered, it is one job
// and no second. A cancel does not break it off: only the answer tells what there is to cancel.
async function order(body, signal) {
  if (ordered.body !== body) ordered = { body, key: random() };
  const headers = { "Content-Type": "application/json", "Idempotency-Key": ordered.key };
  show("Starting", null);
  const answer = await insist(
    () => fetch("/align", { method: "POST", headers, body }), signal, () => show(WAITING, null), true,
  );
  if (!answer.ok) throw signal.aborted ? new Error("Cancelled.") : await refusal(answer);
  ordered = {};
  return answer.json();
}

const random = () => crypto.getRandomValues(new Uint32Array(4)).join("-");

const STAGES = {
  queued: "Waiting for a worker", starting: "Starting", scan: "Listening", score: "Comparing",
  trace: "Following the rotation", compare: "Asking the reference",
  write: "Writing the corrected file", done: "Finishing",
};

async function watch(id) {
  let info = await follow(id);
  while (!info) info = await look(id) ?? await follow(id);
  if (info.state === "cancelled") throw new Error("Cancelled.");
  // The job's own error is that of its first track: where there are more, each has one to show.
  if (info.error && info.results.length < 2) throw new Error(info.error.detail);
  for (const result of info.results) await render(result);
}

// The job as it has ended; null where its events cannot be had now. A browser connects again by
// itself while the service restarts, but gives up for good on any answer that is no stream.
function follow(id) {
  return new Promise((resolve) => {
    const events = new EventSource(`/jobs/${id}/events`);
    events.addEventListener("progress", (event) => {
      const info = JSON.parse(event.data);
      show(STAGES[info.stage] ?? info.stage, info.progress);
      $("of").textContent = info.label;  // a page that is loaded again has forgotten its files
    });
    events.addEventListener("end", (event) => {
      events.close();
      resolve(JSON.parse(event.data));
    });
    events.onerror = () => {
      show(WAITING, null);
      if (events.readyState === EventSource.CLOSED) resolve(null);
    };
  });
}

// The same asked for without events, after a pause; throws where waiting is of no use.
async function look(id) {
  for (let pause = PAUSE_S; ; ) {
    await new Promise((resolve) => setTimeout(resolve, 1000 * pause));
    const answer = await fetch(`/jobs/${id}`).catch(() => null);
    if (answer?.ok) {
      const info = await answer.json();
      return info.finished_at ? info : null;
    }
    if (answer && answer.status < 500 && answer.status !== 429) {
      throw await refusal(answer);
    }
    pause = Math.max(PAUSE_S, Number(answer?.headers.get("Retry-After")) || 0);
  }
}

async function render(result) {
  const view = $("result").content.cloneNode(true);
  const part = (name) => view.querySelector(`.${name}`);
  part("name").textContent = result.name;
  if (result.error) {
    part("verdict").textContent = "Failed";
    part("words").textContent = result.error.detail;
    for (const name of ["plot", "preview", "links"]) part(name).remove();
  } else {
    const report = await json(result.report_url);
    part("verdict").textContent = result.verdict;
    part("verdict").classList.add(result.verdict);
    part("words").textContent = words(report);
    for (const text of [...report.reasons, ...report.warnings, ...inPlugins(report)]) {
      const item = document.createElement("li");
      item.textContent = text;
      part("notes").append(item);
    }
    part("plot").src = result.plot_url;
    part("plot").alt = `The sound over the picture before and after: ${words(report)}`;
    if (result.preview_url) part("preview").src = result.preview_url;
    else part("preview").remove();
    part("audio").href = result.audio_url;
    part("audio").textContent = report.output.untouched_copy
      ? "Download the track (untouched)" : "Download the corrected track";
    part("report").href = result.report_url;
  }
  $("results").append(view);
}

// As model/wording.py has it: rounded down, and never certain.
const percent = (share) => `${Math.floor(100 * Math.min(share, 0.99) + 1e-9)} %`;
const signed = (degrees) => `${degrees > 0 ? "+" : ""}${degrees.toFixed(1)}°`;

function words(report) {
  const degrees = report.rotate_field_ccw_deg;
  const span = (arc) => `${signed(arc[0])} to ${signed(arc[1])}`;
  const arcs = [report.interval_deg, report.second_interval_deg].filter(Boolean).map(span);
  const side = degrees > 0 ? "left (counter-clockwise)" : "right (clockwise)";
  const turn = `${Math.abs(degrees).toFixed(1)}° to the ${side} seen from above`;
  const sure = `90 % interval ${arcs.join(" or ")}, confidence ${percent(report.confidence)}`;
  const state = report.fix ? `with the fix "${report.fix}"` : "as it is";
  if (report.verdict === "aligned") return `The sound fits ${state} (${sure}).`;
  if (report.verdict === "misaligned") return `Turn the sound field ${turn} (${sure}).`;
  return `The evidence does not suffice. Best guess: ${turn} (${sure}).`;
}

// What a rotator plug-in is set to that does the same, where the rotation found is all.
function inPlugins(report) {
  const { verdict, fix, trajectory, output, rotate_field_ccw_deg: found } = report;
  const more = fix || trajectory?.followed || output.applied_deg !== found;
  if (verdict !== "misaligned" || more) return [];
  const set = report.rotators.map((one) => `${one.name} ${signed(one.value_deg)}`);
  return [`In a plug-in instead of the corrected file: ${set.join(", ")}.`];
}

// A screen reader reads the stage out whenever it is written, so that is not done at every percent.
function show(stage, fraction) {
  if ($("stage").textContent !== stage) $("stage").textContent = stage;
  $("share").textContent = fraction === null ? "" : `(${Math.round(100 * fraction)} %)`;
  if (fraction === null) $("bar").removeAttribute("value");
  else $("bar").value = fraction;
}

// Who works by keyboard goes on from the button that takes the other's place.
function busy(on) {
  const [here, next] = on ? [$("start"), $("cancel")] : [$("cancel"), $("start")];
  const moves = here.matches(":focus-visible");
  $("start").disabled = on;
  $("cancel").hidden = !on;
  if (moves) next.focus();
  $("status").hidden = !on;
  $("of").textContent = "";
  if (on) show("Starting", 0);
}

function fail(message) {
  $("error").textContent = message;
  $("error").hidden = false;
}

// Another job's address in the same tab changes no more than what stands behind the #.
addEventListener("hashchange", () => location.reload());

const known = location.hash.match(/^#([0-9a-f]{32})$/);
letIn.then((open) => { if (open && known && !sending) see(async () => ({ id: known[1] })); });
