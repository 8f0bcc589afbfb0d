// Searching by a sound. Without this file the form sends the file and its answer is a page. With
// it a sound can be recorded, its waveform is shown, and results come below while the sound stays
// chosen. The waveform comes from the server: a long file is never decoded here.
import { isTooLarge, post, say, whenDropped } from "./common.js";
import { Region } from "./region.js";

const form = document.getElementById("by-example");
const input = form.elements.file;
const results = document.getElementById("results");
const record = document.getElementById("record");
const whole = document.getElementById("whole");
const listen = document.getElementById("listen");
const region = new Region(document.getElementById("wave"), form.elements.from, form.elements.to, {
  onchange: () => { whole.hidden = region.isWhole; },
});

let chosen = null;
let playing = null; // an object URL
let turn = 0;

function body(more = {}) {
  const data = new FormData();
  data.set("file", chosen, chosen.name);
  for (const [name, value] of Object.entries(more)) if (value !== "") data.set(name, value);
  return data;
}

async function choose(file) {
  if (isTooLarge(file)) return;
  chosen = file;
  turn += 1;
  const mine = turn;
  input.required = false;
  results.replaceChildren();
  region.show([], 0);
  region.clear();
  if (playing) URL.revokeObjectURL(playing);
  playing = URL.createObjectURL(file);
  listen.src = playing;
  document.getElementById("chosen-name").textContent = file.name;
  document.getElementById("chosen").hidden = false;
  say(`Looking at ${file.name} …`, { busy: true });
  try {
    const answer = await (await post(form.dataset.peaks, body(), "application/json")).json();
    if (mine !== turn) return;
    region.show(answer.peaks, answer.duration);
    document.getElementById("chosen-name").textContent = `${file.name}, ${answer.duration.toFixed(1)} s`;
    form.dataset.ready = String(turn);
    say("");
  } catch (error) {
    if (mine === turn) say(error.message);
  }
}

input.addEventListener("change", () => {
  if (input.files.length) choose(input.files[0]);
});

whole.addEventListener("click", () => region.clear());

form.addEventListener("submit", async (event) => {
  if (!chosen) return; // the browser asks for a file
  event.preventDefault();
  const adds = event.submitter && event.submitter.name === "add";
  say(adds ? `Adding ${chosen.name} …` : `Listening to ${chosen.name} …`, { busy: true });
  try {
    if (adds) {
      const clip = await (await post(form.dataset.add, body(), "application/json")).json();
      const note = document.createElement("p");
      const link = document.createElement("a");
      link.href = `/clip/${clip.clip}`;
      link.textContent = chosen.name;
      note.append(link, " is in the library now.");
      results.replaceChildren(note);
      say(`${chosen.name} was added to the library.`);
    } else {
      const part = { from: form.elements.from.value, to: form.elements.to.value };
      const answer = await post(form.action, body(part), "text/html");
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const heading = document.createElement("h2");
      heading.textContent = region.isWhole ? "What sounds like it"
        : `What sounds like ${region.part.map((time) => `${time.toFixed(1)} s`).join(" to ")} of it`;
      for (const one of page.querySelectorAll("main h1")) one.replaceWith(...one.childNodes);
      results.replaceChildren(heading, ...page.querySelector("main").childNodes);
      say("");
    }
    results.focus();
  } catch (error) {
    say(error.message);
  }
});

// --- Playing the part -------------------------------------------------------------------------

listen.addEventListener("play", () => {
  const [start, end] = region.part;
  if (region.isWhole) return;
  if (listen.currentTime < start || listen.currentTime >= end - 0.05) listen.currentTime = start;
});

listen.addEventListener("timeupdate", () => {
  if (!region.isWhole && listen.currentTime >= region.part[1]) listen.pause();
});

// --- Dropping ---------------------------------------------------------------------------------

whenDropped(([file]) => choose(file));

// --- Recording --------------------------------------------------------------------------------

let recorder = null;

async function startRecording() {
  const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
  const pieces = [];
  recorder = new MediaRecorder(stream);
  recorder.addEventListener("dataavailable", (event) => pieces.push(event.data));
  recorder.addEventListener("stop", () => {
    for (const track of stream.getTracks()) track.stop();
    const kind = (recorder.mimeType || "audio/webm").split(";")[0];
    const ending = { "audio/mp4": "m4a", "audio/ogg": "ogg" }[kind] || "webm";
    recorder = null;
    record.setAttribute("aria-pressed", "false");
    record.lastElementChild.textContent = "Record";
    choose(new File(pieces, `recording.${ending}`, { type: kind }));
  });
  recorder.start();
  record.setAttribute("aria-pressed", "true");
  record.lastElementChild.textContent = "Stop";
  say("Recording. Press the button again to stop.");
}

// Browsers give the microphone only to pages that nobody on the way can change.
if (window.isSecureContext && navigator.mediaDevices && window.MediaRecorder) {
  record.hidden = false;
  record.setAttribute("aria-pressed", "false");
  record.addEventListener("click", () => {
    if (recorder) recorder.stop();
    else startRecording().catch(() => say("The browser gave no microphone. Allow it, or choose a file."));
  });
}
