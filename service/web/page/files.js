// Choosing files: in the browser's dialog, or by dropping them on a field.

// Files dropped beside a field would be opened in place of the page, and end what it is at.
for (const kind of ["dragover", "drop"]) {
  addEventListener(kind, (event) => {
    if (!event.dataTransfer.types.includes("Files") || event.defaultPrevented) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = "none";
  });
}

// `refuse` is told in a sentence why what was dropped is not taken.
export function choosing(input, drop, refuse) {
  const chosen = drop.querySelector(".chosen");
  const empty = chosen.textContent;
  input.addEventListener("change", () => {
    chosen.textContent = [...input.files].map((file) => file.name).join(", ") || empty;
  });
  drop.addEventListener("dragover", (event) => { event.preventDefault(); drop.classList.add("over"); });
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    const { files } = event.dataTransfer;
    if (!files.length) return;  // text, or an image of another page
    const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry());
    const folder = entries.find((entry) => entry?.isDirectory);  // among the files as if it were one
    if (folder) {
      refuse(`${folder.name} is a folder: drop the files that are in it.`);
      return;
    }
    if (files.length > 1 && !input.multiple) {
      refuse(`Drop one file here, and not ${files.length}: tracks have a field of their own.`);
      return;
    }
    input.files = files;
    input.dispatchEvent(new Event("change"));
  });
}
