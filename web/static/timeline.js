// The clip's page: spectrogram and scores over time follow the sound, show values under the
// pointer, and take the sound where they are clicked or where the arrow keys lead. Other parts of a
// long recording replace the one that is shown. Without this file all of it is there to look at.

const article = document.querySelector(".clip");
const audio = document.getElementById("sound");
let view = document.getElementById("view");
let hovered = null;

const clipStart = Number(article.dataset.clipStart);
const clipNumber = Number(article.dataset.clip);
const CLIP = 9.6;

// Seconds of the recording at which what the element plays begins: a rendered clip is a part.
let origin = 0;
if (audio && audio.dataset.rendered === "1") origin = clipStart;

function clock(seconds) {
  const tenths = Math.round(seconds * 10);
  const minutes = Math.floor(tenths / 600);
  const rest = tenths % 600;
  const second =
    String(Math.floor(rest / 10)).padStart(2, "0") + (rest % 10 ? `.${rest % 10}` : "");
  const hours = Math.floor(minutes / 60);
  return hours
    ? `${hours}:${String(minutes % 60).padStart(2, "0")}:${second}`
    : `${minutes}:${second}`;
}

const span = () => [Number(view.dataset.start), Number(view.dataset.end)];
const timeline = () => view.querySelector("#timeline");
const now = () => (audio ? origin + audio.currentTime : clipStart);

function showValues(seconds) {
  const [start] = span();
  const at = Math.floor((seconds - start) / Number(view.dataset.step));
  for (const lane of view.querySelectorAll(".lane")) {
    const scores = (lane.scores ??= lane.dataset.scores.split(",").map(Number));
    const value = scores[at];
    lane.nextElementSibling.textContent = value === undefined ? "" : (value / 100).toFixed(2);
  }
}

function place(name, seconds) {
  const [start, end] = span();
  const share = seconds === null ? -1 : (seconds - start) / (end - start);
  view.style.setProperty(name, share >= 0 && share <= 1 ? share : -1);
}

function draw() {
  const seconds = now();
  const slider = timeline();
  place("--at", audio ? seconds : null);
  place("--hover", hovered);
  if (slider) {
    showValues(hovered ?? seconds);
    if (slider.getAttribute("role") === "slider") {
      slider.setAttribute("aria-valuenow", seconds.toFixed(1));
      slider.setAttribute("aria-valuetext", clock(seconds));
    }
  }
  const shown = document.querySelector(".now");
  if (shown) {
    shown.textContent = hovered === null ? clock(seconds) : clock(hovered);
    shown.classList.toggle("hover", hovered !== null);
  }
}

// --- Moving -----------------------------------------------------------------------------------

function seek(seconds) {
  if (!audio) return;
  const set = () => {
    audio.currentTime = Math.max(seconds - origin, 0);
    draw();
  };
  if (audio.dataset.rendered === "1") {
    // The browser cannot decode the file: the server renders the clip that holds this moment.
    const ahead = Math.floor((seconds - clipStart) / CLIP + 1e-6);
    const source = `${article.dataset.clips}/${clipNumber + ahead}/audio.wav`;
    if (!audio.src.endsWith(source)) {
      const playing = !audio.paused;
      origin = clipStart + ahead * CLIP;
      audio.src = source;
      if (playing) audio.play().catch(() => {});
    }
  }
  if (audio.readyState >= 1) set();
  else audio.addEventListener("loadedmetadata", set, { once: true });
}

function atPointer(event) {
  const track = view.querySelector("#timeline .track");
  const box = track.getBoundingClientRect();
  const [start, end] = span();
  const share = (event.clientX - box.left) / box.width;
  return share < 0 || share > 1 ? null : start + share * (end - start);
}

function listen() {
  const slider = timeline();
  if (!slider) return;
  slider.addEventListener("pointermove", (event) => {
    hovered = atPointer(event);
    draw();
  });
  slider.addEventListener("pointerleave", () => {
    hovered = null;
    draw();
  });
  if (!audio) return;
  const [start, end] = span();
  slider.tabIndex = 0;
  slider.setAttribute("role", "slider");
  slider.setAttribute("aria-label", "Place in the recording");
  slider.setAttribute("aria-valuemin", String(start));
  slider.setAttribute("aria-valuemax", String(end));
  slider.addEventListener("click", (event) => {
    const seconds = atPointer(event);
    if (seconds === null) return;
    hovered = null;
    seek(seconds);
    audio.play().catch(() => {});
  });
  slider.addEventListener("keydown", (event) => {
    const [from, to] = span();
    const steps = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageUp: 10, PageDown: -10 };
    if (event.key in steps) seek(Math.min(Math.max(now() + steps[event.key], from), to - 0.05));
    else if (event.key === "Home") seek(from);
    else if (event.key === "End") seek(to - 0.05);
    else if (event.key === " " || event.key === "Enter") toggle();
    else return;
    event.preventDefault();
  });
}

function toggle() {
  if (audio.paused) audio.play().catch(() => {});
  else audio.pause();
}

// --- Parts of a long recording ----------------------------------------------------------------

let loading = null;

async function open(url, { push }) {
  if (loading) loading.abort();
  loading = new AbortController();
  view.classList.add("loading");
  try {
    const answer = await fetch(url, { signal: loading.signal, headers: { Accept: "text/html" } });
    if (!answer.ok) throw new Error(String(answer.status));
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const next = page.getElementById("view");
    view.replaceWith(next);
    view = next;
    if (push) history.pushState(null, "", url);
    hovered = null;
    listen();
    draw();
  } catch (error) {
    if (error.name !== "AbortError") location.assign(url);
  }
}

document.addEventListener("click", (event) => {
  const plain = event.button === 0 && !event.ctrlKey && !event.metaKey && !event.shiftKey;
  if (!plain) return;
  const peak = event.target.closest("[data-at]");
  if (peak && audio) {
    event.preventDefault();
    seek(Number(peak.dataset.at));
    audio.play().catch(() => {});
    return;
  }
  const link = event.target.closest("#view .pager a, #view .outline a");
  if (!link) return;
  event.preventDefault();
  // Links within a drawing give their address as an object.
  open(link.href.baseVal ?? link.href, { push: true });
});

window.addEventListener("popstate", () => open(location.href, { push: false }));

// --- The player -------------------------------------------------------------------------------

if (audio) {
  const follow = () => {
    draw();
    const [start, end] = span();
    const seconds = now();
    if (!audio.paused && (seconds < start - 0.2 || seconds > end + 0.2) && !view.matches(".loading")) {
      const begin = Math.floor(Math.max(seconds, 0) / CLIP) * CLIP;
      open(`${location.pathname}?from=${begin.toFixed(1)}`, { push: false });
    }
    if (!audio.paused) requestAnimationFrame(follow);
  };
  for (const name of ["timeupdate", "seeked", "loadedmetadata"]) audio.addEventListener(name, draw);
  for (const name of ["play", "pause"]) audio.addEventListener(name, follow);
  audio.addEventListener("error", () => {
    origin = clipStart; // app.js plays the rendered clip
  });
  document.querySelector(".now").hidden = false;
  document.addEventListener("keydown", (event) => {
    const elsewhere = event.target.closest("input, textarea, select, button, a, audio, [role=slider]");
    if (event.key === " " && !elsewhere && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      toggle();
    }
  });
}

listen();
draw();
