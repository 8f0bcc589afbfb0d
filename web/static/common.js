// What several scripts need: the line that says what happens, sending something with the page's
// token, and files that are dropped anywhere.

const status = document.getElementById("status");

export function say(text, { busy = false } = {}) {
  status.classList.toggle("busy", busy);
  status.textContent = text;
}

// What the server does not take is refused here at once, and said.
export function isTooLarge(file) {
  const limit = Number(document.body.dataset.uploadLimit);
  if (file.size <= limit) return false;
  say(`${file.name} is larger than ${limit / 1e6} MB, the most that can be uploaded.`);
  return true;
}

export async function post(url, body, accept = "application/json") {
  const token = document.querySelector("meta[name=csrf-token]").content;
  const response = await fetch(url, {
    method: "POST",
    body,
    headers: { "X-CSRF-Token": token, Accept: accept },
  });
  if (response.ok) return response;
  let message = `The server answered ${response.status}.`;
  if ((response.headers.get("Content-Type") || "").includes("json")) {
    message = (await response.json().catch(() => ({}))).error || message;
  } else {
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    message = page.querySelector("[role=alert]")?.textContent || message;
  }
  throw new Error(message);
}

// Hands over one file that is dropped on the page.
export function whenDropped(take) {
  const zone = document.getElementById("drop");
  const carriesFiles = (event) => (
    event.dataTransfer && Array.from(event.dataTransfer.types).includes("Files")
  );
  let depth = 0; // dragenter and dragleave come for every element on the way
  const enter = (by) => {
    depth = Math.max(0, depth + by);
    zone.hidden = depth === 0;
  };
  document.addEventListener("dragenter", (event) => carriesFiles(event) && enter(1));
  document.addEventListener("dragleave", (event) => carriesFiles(event) && enter(-1));
  document.addEventListener("dragover", (event) => {
    if (carriesFiles(event)) event.preventDefault();
  });
  document.addEventListener("drop", (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    enter(-depth);
    if (event.dataTransfer.files.length === 1) take(event.dataTransfer.files);
    else say("One sound at a time, please.");
  });
}
