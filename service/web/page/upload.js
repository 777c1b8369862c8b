// Files on their way to the service, in pieces (tus 1.0.0): where the network drops, a piece is
// sent again and not the whole.

import { refusal } from "./door.js";

const TUS = { "Tus-Resumable": "1.0.0" };
const PIECE = 8 << 20;
const PAUSE_S = 2;
// What passes: a request that died and holds the upload still, no service. All else that passes
// says when to come again.
const BUSY = [423, 502, 503, 504];
const passes = (answer) =>
  !answer.ok && (BUSY.includes(answer.status) || answer.headers.has("Retry-After"));
const begun = new WeakMap();  // addresses by file: what is there already is not sent again

// The answer to what `ask` sends. While there is none, or one that passes, it is sent again after a
// pause and a word to `wait`. Once `signal` says so it is given up, unless it is to be `known`
// whether it has arrived; then any answer will do.
export async function insist(ask, signal, wait, known = false) {
  for (;;) {
    const answer = await ask().catch(() => null);
    if (signal.aborted && !known) throw new Error("Cancelled.");
    if (answer && (signal.aborted || !passes(answer))) return answer;
    wait();
    await new Promise((resolve) => setTimeout(resolve, 1000 * PAUSE_S));
  }
}

// Send a file; its upload's id. `tell` hears how many bytes are there, or null while it waits.
export async function send(file, signal, tell) {
  const wait = () => tell(null);
  let at = await standing(file, signal, wait);
  while (at < file.size) {
    tell(at);
    const piece = await file.slice(at, at + PIECE).arrayBuffer().catch(() => {
      throw new Error(`${file.name} cannot be read any more: choose it again.`);
    });
    const answer = await insist(() => fetch(begun.get(file), {
      method: "PATCH", body: piece, signal,
      headers: { ...TUS, "Content-Type": "application/offset+octet-stream", "Upload-Offset": at },
    }), signal, wait);
    if (answer.status === 204) at = Number(answer.headers.get("Upload-Offset"));
    // Elsewhere than thought, for more or less has arrived than was answered for; or expired.
    else if ([404, 409].includes(answer.status)) at = await standing(file, signal, wait);
    else throw await refusal(answer);
  }
  return begun.get(file).split("/").pop();
}

// How much of a file the service has; an upload is begun if there is none.
async function standing(file, signal, wait) {
  const url = begun.get(file);
  if (url) {
    const ask = () => fetch(url, { method: "HEAD", headers: TUS, signal });
    const answer = await insist(ask, signal, wait);
    if (answer.ok) return Number(answer.headers.get("Upload-Offset"));
    if (answer.status !== 404) throw await refusal(answer);
  }
  const name = btoa(String.fromCharCode(...new TextEncoder().encode(file.name)));
  const answer = await insist(() => fetch("/uploads", {
    method: "POST", signal,
    headers: { ...TUS, "Upload-Length": file.size, "Upload-Metadata": `filename ${name}` },
  }), signal, wait);
  if (!answer.ok) throw await refusal(answer);
  begun.set(file, answer.headers.get("Location"));
  return 0;
}

// Forget what has arrived of files; what this does not reach expires.
export function drop(files) {
  for (const file of files.filter((file) => begun.has(file))) {
    fetch(begun.get(file), { method: "DELETE", headers: TUS }).catch(() => null);
    begun.delete(file);
  }
}
