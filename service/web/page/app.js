// Upload, watch, show. Everything the page does, a tool can do over the same HTTP interface.

import { UNREACHABLE, json, sentence } from "./answers.js";
import { letIn, lock } from "./door.js";
import { choosing } from "./files.js";

const PAUSE_S = 2;
const NO_KEY = "The key is no longer good.";
const $ = (id) => document.getElementById(id);
let job = null;
let upload = null;

for (const kind of ["video", "audio"]) choosing($(kind), $(`drop-${kind}`), fail);

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  if (!$("video").files.length) { fail("Choose a 360° video first."); return; }
  if ($("offset").validity.badInput) {
    fail("The time at which the track begins is no number: write seconds, such as 1.5.");
    return;
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
    job = upload = null;
  }
}

// What has not arrived yet is lost with the page; the browser asks first.
addEventListener("beforeunload", (event) => { if (upload && !job) event.preventDefault(); });

$("cancel").addEventListener("click", async () => {
  if (!job) { upload?.abort(); return; }
  const answer = await fetch(`/jobs/${job.id}/cancel`, { method: "POST" }).catch(() => null);
  if (!answer?.ok) fail(answer ? await sentence(answer) : UNREACHABLE);
});

function body() {
  const data = new FormData();
  const options = {
    convention: $("convention").value,
    fix: $("fix").value || null,
    method: $("method").value,
    follow: $("follow").checked,
    float_output: $("float").checked,
    apply_undecided: $("apply").checked,
  };
  if ($("offset").value !== "") options.offset_s = Number($("offset").value);
  data.append("options", JSON.stringify(options));
  data.append("video", $("video").files[0]);
  for (const file of $("audio").files) data.append("audio", file);
  return data;
}

// XMLHttpRequest, for fetch does not tell how far an upload is.
function submit() {
  return new Promise((resolve, reject) => {
    upload = new XMLHttpRequest();
    upload.open("POST", "/align");
    upload.responseType = "json";
    upload.upload.onprogress = (event) => show("Uploading", event.loaded / event.total);
    upload.onload = () => {
      if (upload.status === 202) resolve(upload.response);
      else if (upload.status === 401) { lock(); reject(new Error(NO_KEY)); }
      else reject(new Error(upload.response?.detail ?? `The service answered ${upload.status}.`));
    };
    upload.onerror = () => reject(new Error(UNREACHABLE));
    upload.onabort = () => reject(new Error("Cancelled."));
    upload.send(body());
  });
}

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
      show("Waiting for the service", null);
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
      if (answer.status !== 401) throw new Error(await sentence(answer));
      lock();
      throw new Error(NO_KEY);
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
    for (const name of ["plot", "links"]) part(name).remove();
  } else {
    const report = await json(result.report_url);
    part("verdict").textContent = result.verdict;
    part("verdict").classList.add(result.verdict);
    part("words").textContent = words(report);
    for (const text of [...report.reasons, ...report.warnings]) {
      const item = document.createElement("li");
      item.textContent = text;
      part("notes").append(item);
    }
    part("plot").src = result.plot_url;
    part("plot").alt = `The sound over the picture before and after: ${words(report)}`;
    part("audio").href = result.audio_url;
    part("audio").textContent = report.output.untouched_copy
      ? "Download the track (untouched)" : "Download the corrected track";
    part("report").href = result.report_url;
  }
  $("results").append(view);
}

const signed = (degrees) => `${degrees > 0 ? "+" : ""}${degrees.toFixed(1)}°`;

function words(report) {
  const degrees = report.rotate_field_ccw_deg;
  const span = (arc) => `${signed(arc[0])} to ${signed(arc[1])}`;
  const arcs = [report.interval_deg, report.second_interval_deg].filter(Boolean).map(span);
  const side = degrees > 0 ? "left (counter-clockwise)" : "right (clockwise)";
  const turn = `${Math.abs(degrees).toFixed(1)}° to the ${side} seen from above`;
  const sure = `90 % interval ${arcs.join(" or ")}, confidence ${(100 * report.confidence).toFixed(0)} %`;
  const state = report.fix ? `with the fix "${report.fix}"` : "as it is";
  if (report.verdict === "aligned") return `The sound fits ${state} (${sure}).`;
  if (report.verdict === "misaligned") return `Turn the sound field ${turn} (${sure}).`;
  return `The evidence does not suffice. Best guess: ${turn} (${sure}).`;
}

// A screen reader reads the stage out whenever it is written, so that is not done at every percent.
function show(stage, fraction) {
  if ($("stage").textContent !== stage) $("stage").textContent = stage;
  $("share").textContent = fraction === null ? "" : `(${Math.round(100 * fraction)} %)`;
  if (fraction === null) $("bar").removeAttribute("value");
  else $("bar").value = fraction;
}

function busy(on) {
  $("start").disabled = on;
  $("cancel").hidden = !on;
  $("status").hidden = !on;
  $("of").textContent = "";
  if (on) show("Starting", 0);
}

function fail(message) {
  $("error").textContent = message;
  $("error").hidden = false;
}

const known = location.hash.match(/^#([0-9a-f]{32})$/);
letIn.then((open) => { if (open && known && !upload) see(async () => ({ id: known[1] })); });
