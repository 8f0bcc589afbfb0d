// The pages work without this file. It adds: keys, players in the strips of hits, videos that load
// on click, moments that play in place, and dropping a sound anywhere.

import { isTooLarge, say, whenDropped } from "./common.js";

// --- Keys -------------------------------------------------------------------------------------

function isTyping(target) {
  return target.closest("input, textarea, select, [contenteditable]") !== null;
}

function step(direction) {
  const links = [...document.querySelectorAll(".hit :is(h2, h3) a")];
  const here = document.activeElement.closest(".hit");
  const at = links.findIndex((link) => link.closest(".hit") === here);
  const next = links[at < 0 ? (direction > 0 ? 0 : -1) : at + direction];
  if (!next) return;
  next.focus({ preventScroll: true });
  next.closest(".hit").scrollIntoView({ block: "nearest" });
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
  const box = document.getElementById("q");
  if (isTyping(event.target)) {
    if (event.key === "Escape" && event.target === box && !box.value) box.blur();
  } else if (event.key === "/" && box) {
    event.preventDefault();
    box.focus();
    box.select();
  } else if (event.key === "j" || event.key === "k") {
    step(event.key === "j" ? 1 : -1);
  } else if (event.key === "p") {
    const hit = document.activeElement.closest(".hit") || document.querySelector(".hits .hit");
    if (hit && hit.querySelector(".play")) hit.querySelector(".play").click();
  }
});

// --- Videos -----------------------------------------------------------------------------------

let framed = null; // the place of the one video that is loaded, and the button it replaced

function closeVideo() {
  if (!framed) return;
  framed.frame.classList.remove("open");
  framed.frame.replaceChildren(framed.button);
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
  frame.classList.add("open");
  frame.replaceChildren(player);
  player.focus();
}

// --- Sounds -----------------------------------------------------------------------------------

function pauseOthers(chosen) {
  for (const audio of document.querySelectorAll("audio")) {
    if (audio !== chosen) audio.pause();
  }
}

function play(audio, source, fallback, at = null) {
  if (audio.getAttribute("src") !== source || audio.ended) {
    audio.dataset.fallback = fallback;
    audio.src = source;
  }
  if (at !== null) seekWhenReady(audio, at);
  audio.play().catch(() => {}); // the error event below says why
}

// A server that draws many pictures turns some away for a moment: they are asked for again.
document.addEventListener(
  "error",
  ({ target }) => {
    if (!(target instanceof HTMLImageElement) || !target.closest(".strip, .tiles, .over-time")) return;
    const tries = Number(target.dataset.tries || 0);
    if (tries >= 5) return;
    target.dataset.tries = tries + 1;
    setTimeout(() => {
      target.src = target.src;
    }, 3000);
  },
  true,
);

function seekWhenReady(audio, seconds) {
  const seek = () => {
    audio.currentTime = seconds;
  };
  if (audio.readyState >= 1) seek();
  else audio.addEventListener("loadedmetadata", seek, { once: true });
}

// Where the strip of an audio element begins in what the element plays: the whole recording, or
// the clip as the server rendered it.
function stripSpan(audio) {
  const strip = audio.closest(".player").querySelector(".strip");
  if (!strip) return null;
  const [start, end] = [Number(strip.dataset.start), Number(strip.dataset.end)];
  const rendered = !/\/recordings\//.test(audio.currentSrc || audio.src);
  return { strip, length: end - start, from: rendered ? 0 : start };
}

document.addEventListener("click", (event) => {
  const plain = event.button === 0 && !event.ctrlKey && !event.metaKey && !event.shiftKey;
  if (!plain) return;
  const control = event.target.closest("[data-embed], [data-play]");
  if (control && control.dataset.embed) {
    event.preventDefault();
    const hit = control.closest(".hit");
    const name = (hit.querySelector("h1, h2, h3") || document.querySelector("h1")).textContent;
    openVideo(hit.querySelector(".frame"), control.dataset.embed, `YouTube video ${name.trim()}`);
  } else if (control) {
    const audio = control.closest(".hit").querySelector("audio");
    if (!audio) return;
    event.preventDefault();
    const isStrip = control.classList.contains("play");
    if (isStrip && !audio.paused) audio.pause();
    else play(audio, control.dataset.play, control.dataset.fallback);
  } else {
    const strip = event.target.closest(".player .strip");
    if (!strip) return;
    const button = strip.querySelector(".play");
    const audio = strip.parentElement.querySelector("audio");
    const box = strip.getBoundingClientRect();
    const share = (event.clientX - box.left) / box.width;
    const span = stripSpan(audio);
    play(audio, button.dataset.play, button.dataset.fallback, span.from + share * span.length);
  }
});

function mark(audio) {
  const span = audio.closest(".player") && stripSpan(audio);
  if (!span) return;
  const share = (audio.currentTime - span.from) / span.length;
  const within = share >= 0 && share <= 1 && (audio.currentTime > 0 || !audio.paused);
  span.strip.style.setProperty("--at", within ? share : -1);
  span.strip.classList.toggle("playing", !audio.paused);
}

// These events do not bubble, so they are caught on their way down.
document.addEventListener("play", (event) => {
  closeVideo();
  pauseOthers(event.target);
  mark(event.target);
  const follow = () => {
    mark(event.target);
    if (!event.target.paused) requestAnimationFrame(follow);
  };
  requestAnimationFrame(follow);
}, true);

document.addEventListener("pause", (event) => mark(event.target), true);
document.addEventListener("seeked", (event) => mark(event.target), true);

document.addEventListener("error", (event) => {
  const audio = event.target;
  if (!(audio instanceof HTMLAudioElement)) return;
  const fallback = audio.dataset.fallback;
  if (fallback) {
    // The browser cannot decode the file itself: play the clip that the server renders as WAV.
    delete audio.dataset.fallback;
    audio.dataset.rendered = "1";
    audio.src = fallback;
    audio.play().catch(() => {});
  } else {
    say("This sound cannot be played. Its file may have been moved or deleted.");
  }
}, true);

// --- Search by a sound file -------------------------------------------------------------------

const form = document.querySelector("form.example");
const input = form && form.querySelector("input[type=file]");

function send(files) {
  if (isTooLarge(files[0])) {
    input.value = "";
    return;
  }
  if (input.files !== files) input.files = files;
  say(`Listening to ${files[0].name} …`, { busy: true });
  form.submit();
}

if (form) {
  input.addEventListener("change", () => {
    if (input.files.length) send(input.files);
  });
  whenDropped(send);
  // Coming back with the browser's button shows the page as it was left: no longer busy.
  window.addEventListener("pageshow", () => {
    say("");
    input.value = "";
  });
}
