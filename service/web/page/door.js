// Asks for a key where the service wants one. The service keeps it in a cookie that no script can
// read, and that reaches pictures, downloads and event streams, which cannot carry a header.

import { UNREACHABLE, sentence } from "./answers.js";

const door = document.getElementById("door");
const fault = document.getElementById("door-error");

export function lock() {
  door.hidden = false;
  document.getElementById("form").hidden = true;
  document.getElementById("key").focus();
}

// The error that an answer is; where it asks for a key, the door is shown.
export async function refusal(answer) {
  if (answer.status !== 401) return new Error(await sentence(answer));
  lock();
  return new Error("The key is no longer good.");
}

door.addEventListener("submit", async (event) => {
  event.preventDefault();
  const answer = await fetch("/session", {
    method: "POST", headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ key: document.getElementById("key").value.trim() }),
  }).catch(() => null);
  if (answer?.ok) {
    location.reload();
    return;
  }
  fault.textContent = answer ? await sentence(answer) : UNREACHABLE;
  fault.hidden = false;
});

async function knock() {
  const shut = (await fetch("/jobs?limit=1")).status === 401;
  if (shut) lock();
  return !shut;
}

// Whether there is no need to ask. The form does not wait for it: it works meanwhile. Who cannot be
// reached is told by what is sent.
export const letIn = knock().catch(() => true);
