// Asks for a key where the service wants one. The service keeps it in a cookie that no script can
// read, and that reaches pictures, downloads and event streams, which cannot carry a header.

const door = document.getElementById("door");
const fault = document.getElementById("door-error");

export function lock() {
  door.hidden = false;
  document.getElementById("form").hidden = true;
  document.getElementById("key").focus();
}

door.addEventListener("submit", async (event) => {
  event.preventDefault();
  const answer = await fetch("/session", {
    method: "POST", headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ key: document.getElementById("key").value.trim() }),
  });
  if (answer.ok) {
    location.reload();
  } else {
    fault.textContent = (await answer.json()).detail;
    fault.hidden = false;
  }
});

if ((await fetch("/jobs?limit=1")).status === 401) lock();
