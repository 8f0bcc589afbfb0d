// The pages work without this file. It adds: "/" to reach the search box, players that load on
// click, moments that play in place, and dropping a sound anywhere.
"use strict";

const status = document.getElementById("status");

function say(text, { busy = false } = {}) {
  status.classList.toggle("busy", busy);
  status.textContent = text;
}

// --- The search box ---------------------------------------------------------------------------

document.addEventListener("keydown", (event) => {
  const box = document.getElementById("q");
  if (!box || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "/" && !event.target.closest("input, textarea, select, [contenteditable]")) {
    event.preventDefault();
    box.focus();
    box.select();
  } else if (event.key === "Escape" && event.target === box && !box.value) {
    box.blur();
  }
});

// --- Players ----------------------------------------------------------------------------------

let framed = null; // the place of the one video that is loaded, and the button it replaced

function closeVideo() {
  if (framed) framed.frame.replaceChildren(framed.button);
  framed = null;
}

function openVideo(frame, source, title) {
  closeVideo();
  pauseOthers(null);
  const player = document.createElement("iframe");
  // YouTube plays only for a page that says where it is.
  player.referrerPolicy = "strict-origin-when-cross-origin";
  player.allow = "autoplay; encrypted-media; fullscreen; picture-in-picture";
  player.title = title;
  player.src = source;
  framed = { frame, button: frame.querySelector(".play") };
  frame.replaceChildren(player);
  player.focus();
}

function pauseOthers(chosen) {
  for (const audio of document.querySelectorAll("audio")) {
    if (audio !== chosen) audio.pause();
  }
}

document.addEventListener("click", (event) => {
  const plain = event.button === 0 && !event.ctrlKey && !event.metaKey && !event.shiftKey;
  const control = plain && event.target.closest("[data-embed], [data-play]");
  if (!control) return;
  const hit = control.closest(".hit");
  if (control.dataset.embed) {
    event.preventDefault();
    const name = hit.querySelector("h1, h2").textContent.trim();
    openVideo(hit.querySelector(".frame"), control.dataset.embed, `YouTube video ${name}`);
  } else {
    const audio = hit.querySelector("audio");
    if (!audio) return;
    event.preventDefault();
    audio.dataset.fallback = control.dataset.fallback;
    audio.src = control.dataset.play;
    audio.play().catch(() => {}); // the error event below says why
  }
});

// These events do not bubble, so they are caught on their way down.
document.addEventListener("play", (event) => {
  closeVideo();
  pauseOthers(event.target);
}, true);

document.addEventListener("error", (event) => {
  const audio = event.target;
  if (!(audio instanceof HTMLAudioElement)) return;
  const fallback = audio.dataset.fallback;
  if (fallback) {
    // The browser cannot decode the file itself: play the clip that the server renders as WAV.
    delete audio.dataset.fallback;
    audio.src = fallback;
    audio.play().catch(() => {});
  } else {
    say("This sound cannot be played. Its file may have been moved or deleted.");
  }
}, true);

// --- Search by a sound file -------------------------------------------------------------------

const form = document.querySelector("form.example");
const input = form && form.querySelector("input[type=file]");
const zone = document.getElementById("drop");

function send(files) {
  if (files.length !== 1) {
    say("One sound at a time, please.");
    return;
  }
  const limit = Number(document.body.dataset.uploadLimit);
  if (files[0].size > limit) {
    say(`${files[0].name} is larger than ${limit / 1e6} MB, the most that can be uploaded.`);
    input.value = "";
    return;
  }
  if (input.files !== files) input.files = files;
  say(`Listening to ${files[0].name} …`, { busy: true });
  form.submit();
}

function carriesFiles(event) {
  return event.dataTransfer && Array.from(event.dataTransfer.types).includes("Files");
}

if (form) {
  let depth = 0; // dragenter and dragleave come for every element on the way

  input.addEventListener("change", () => {
    if (input.files.length) send(input.files);
  });
  document.addEventListener("dragenter", (event) => {
    if (!carriesFiles(event)) return;
    depth += 1;
    zone.hidden = false;
  });
  document.addEventListener("dragleave", (event) => {
    if (!carriesFiles(event)) return;
    depth = Math.max(0, depth - 1);
    zone.hidden = depth === 0;
  });
  document.addEventListener("dragover", (event) => {
    if (carriesFiles(event)) event.preventDefault();
  });
  document.addEventListener("drop", (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    depth = 0;
    zone.hidden = true;
    send(event.dataTransfer.files);
  });
  // Coming back with the browser's button shows the page as it was left: no longer busy.
  window.addEventListener("pageshow", () => {
    say("");
    input.value = "";
  });
}
