// The map of a collection: points on a canvas that pans, zooms, names what is pointed at and plays
// it. The place that is looked at, and the clip that is chosen, are kept in the page's address.
import { say } from "./common.js";

const canvas = document.getElementById("map");
const context = canvas.getContext("2d");
const nameplate = document.getElementById("map-name");
const said = document.getElementById("map-said");
const playsBox = document.getElementById("map-plays");
const sound = new Audio();

const NEAR = 14; // how far from the pointer a point may be, in CSS pixels
const MOST_ZOOM = 200;
const BUCKETS = 128;

let points = null; // what the server sent, and `buckets` of it
let view = { x: 0, y: 0, zoom: 1 }; // what lies in the middle, and how large it is
let shown = new Set();
let chosen = -1;
let colours = [];
let ground = "";
let drawing = 0;
let asked = 0; // for the name of a clip
const names = new Map();

// --- Places -----------------------------------------------------------------------------------

function scale() {
  return (Math.min(canvas.clientWidth, canvas.clientHeight) / 2) * 0.94 * view.zoom;
}

function toScreen(index) {
  const s = scale();
  return [
    canvas.clientWidth / 2 + (points.x[index] / 1e4 - view.x) * s,
    canvas.clientHeight / 2 - (points.y[index] / 1e4 - view.y) * s,
  ];
}

function toMap(left, top) {
  const s = scale();
  return [
    view.x + (left - canvas.clientWidth / 2) / s,
    view.y - (top - canvas.clientHeight / 2) / s,
  ];
}

function bucketOf(x, y) {
  const at = (v) => Math.min(BUCKETS - 1, Math.max(0, Math.floor(((v + 1) / 2) * BUCKETS)));
  return at(y) * BUCKETS + at(x);
}

function nearest(left, top, within) {
  const [x, y] = toMap(left, top);
  const reach = within / scale();
  const cells = Math.min(BUCKETS, Math.ceil((reach / 2) * BUCKETS) + 1);
  const middle = bucketOf(x, y);
  const row = Math.floor(middle / BUCKETS);
  const column = middle % BUCKETS;
  let best = -1;
  let least = reach * reach;
  for (let r = Math.max(0, row - cells); r <= Math.min(BUCKETS - 1, row + cells); r += 1) {
    for (let c = Math.max(0, column - cells); c <= Math.min(BUCKETS - 1, column + cells); c += 1) {
      for (const index of points.buckets[r * BUCKETS + c] || []) {
        const dx = points.x[index] / 1e4 - x;
        const dy = points.y[index] / 1e4 - y;
        const distance = dx * dx + dy * dy;
        if (distance < least && shown.has(groupOf(index))) {
          least = distance;
          best = index;
        }
      }
    }
  }
  return best;
}

function groupOf(index) {
  return points.group[points.label[index]];
}

// --- Drawing ----------------------------------------------------------------------------------

function readColours() {
  colours = [];
  for (const dot of document.querySelectorAll(".legend .dot")) {
    const group = Number(dot.closest("button").dataset.group);
    colours[group] = getComputedStyle(dot).backgroundColor;
  }
  ground = getComputedStyle(document.body).color;
}

function draw() {
  drawing = 0;
  const ratio = window.devicePixelRatio || 1;
  const width = canvas.clientWidth;
  const height = canvas.clientHeight;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  const s = scale();
  const left = width / 2 - view.x * s;
  const top = height / 2 + view.y * s;
  const few = (20_000 / points.clips.length) ** 0.25; // the fewer there are, the larger they may be
  const side = Math.min(9, Math.max(2, 2.2 * few * Math.sqrt(view.zoom)));
  const half = side / 2;
  const round = side > 4;
  context.globalAlpha = 0.8;
  points.byGroup.forEach((indices, group) => {
    if (!shown.has(group)) return;
    context.fillStyle = colours[group];
    if (round) context.beginPath();
    for (const index of indices) {
      const x = left + (points.x[index] / 1e4) * s;
      const y = top - (points.y[index] / 1e4) * s;
      if (x < -side || y < -side || x > width + side || y > height + side) continue;
      if (round) {
        context.moveTo(x + half, y);
        context.arc(x, y, half, 0, 2 * Math.PI);
      } else {
        context.fillRect(x - half, y - half, side, side);
      }
    }
    if (round) context.fill();
  });
  context.globalAlpha = 1;
  if (chosen >= 0) {
    const [x, y] = toScreen(chosen);
    context.beginPath();
    context.arc(x, y, half + 4, 0, 2 * Math.PI);
    context.lineWidth = 2;
    context.strokeStyle = ground;
    context.stroke();
    placeName(x, y);
  }
}

function redraw() {
  if (!drawing && points) drawing = requestAnimationFrame(draw);
}

function placeName(x, y) {
  const width = canvas.clientWidth;
  const wide = nameplate.offsetWidth;
  const left = Math.min(Math.max(x - wide / 2, 4), Math.max(width - wide - 4, 4));
  const above = y > nameplate.offsetHeight + 16;
  nameplate.style.left = `${left}px`;
  nameplate.style.top = `${above ? y - nameplate.offsetHeight - 12 : y + 14}px`;
}

// --- Choosing a point -------------------------------------------------------------------------

async function nameOf(index) {
  const clip = points.clips[index];
  if (!names.has(clip)) {
    const response = await fetch(`${canvas.dataset.clip.replace(/0$/, clip)}.json`);
    if (!response.ok) return null;
    names.set(clip, await response.json());
  }
  return names.get(clip);
}

function choose(index, { aloud = false, play = true } = {}) {
  if (index === chosen) return;
  chosen = index;
  canvas.classList.toggle("pointing", index >= 0);
  asked += 1;
  if (index < 0) {
    nameplate.hidden = true;
    sound.pause();
    redraw();
    return;
  }
  const label = points.labels[points.label[index]];
  nameplate.textContent = label;
  nameplate.hidden = false;
  redraw();
  const mine = asked;
  const look = async () => {
    if (mine !== asked) return;
    const about = await nameOf(index).catch(() => null);
    if (mine !== asked || !about) return;
    const name = about.source === "file" ? about.recording.split(/[\\/]/).pop() : about.recording;
    nameplate.textContent = `${label} · ${name}`;
    if (aloud) said.textContent = `${label}, ${name}`;
    redraw();
    if (play && playsBox.checked) start(index, about);
  };
  // A pointer that passes over asks for nothing.
  setTimeout(look, aloud ? 0 : 90);
}

function start(index, about) {
  if (about.source !== "file") {
    sound.pause();
    return;
  }
  sound.src = canvas.dataset.sound.replace("/0/", `/${points.clips[index]}/`);
  sound.play().catch((error) => {
    if (error.name === "NotAllowedError") say("Click the map once: then the browser lets it play.");
  });
}

function open(index) {
  location.href = canvas.dataset.clip.replace(/0$/, points.clips[index]);
}

function step(dx, dy) {
  if (chosen < 0) {
    choose(nearest(canvas.clientWidth / 2, canvas.clientHeight / 2, 1e6), { aloud: true });
    return;
  }
  const x = points.x[chosen];
  const y = points.y[chosen];
  let best = -1;
  let least = Infinity;
  for (let index = 0; index < points.clips.length; index += 1) {
    if (index === chosen || !shown.has(groupOf(index))) continue;
    const ahead = (points.x[index] - x) * dx + (points.y[index] - y) * dy;
    const aside = Math.abs((points.x[index] - x) * dy) + Math.abs((points.y[index] - y) * dx);
    if (ahead > 0 && aside <= ahead && ahead + 2 * aside < least) {
      least = ahead + 2 * aside;
      best = index;
    }
  }
  if (best < 0) return;
  choose(best, { aloud: true });
  const [left, top] = toScreen(best);
  if (left < 20 || top < 20 || left > canvas.clientWidth - 20 || top > canvas.clientHeight - 20) {
    move(points.x[best] / 1e4, points.y[best] / 1e4, view.zoom);
  }
}

// --- Looking elsewhere ------------------------------------------------------------------------

let remembering = 0;

function move(x, y, zoom) {
  view = {
    x: Math.min(1.1, Math.max(-1.1, x)),
    y: Math.min(1.1, Math.max(-1.1, y)),
    zoom: Math.min(MOST_ZOOM, Math.max(0.8, zoom)),
  };
  redraw();
  clearTimeout(remembering);
  remembering = setTimeout(() => {
    const at = [view.x.toFixed(3), view.y.toFixed(3), view.zoom.toFixed(2)].join(",");
    history.replaceState(null, "", `#at=${at}`);
  }, 200);
}

function zoomAt(left, top, factor) {
  const [x, y] = toMap(left, top);
  const zoom = Math.min(MOST_ZOOM, Math.max(0.8, view.zoom * factor));
  const kept = view.zoom / zoom;
  move(x + (view.x - x) * kept, y + (view.y - y) * kept, zoom);
}

function readAddress() {
  const found = /^#at=(-?[\d.]+),(-?[\d.]+),([\d.]+)$/.exec(location.hash);
  if (found) move(Number(found[1]), Number(found[2]), Number(found[3]));
}

const pointers = new Map();
let moved = 0;
let pinch = 0;

canvas.addEventListener("pointerdown", (event) => {
  canvas.setPointerCapture(event.pointerId);
  pointers.set(event.pointerId, [event.offsetX, event.offsetY]);
  moved = 0;
  pinch = 0;
});

canvas.addEventListener("pointermove", (event) => {
  if (!points) return;
  const last = pointers.get(event.pointerId);
  if (!last) {
    choose(nearest(event.offsetX, event.offsetY, NEAR));
    return;
  }
  const dx = event.offsetX - last[0];
  const dy = event.offsetY - last[1];
  pointers.set(event.pointerId, [event.offsetX, event.offsetY]);
  if (pointers.size === 2) {
    const [one, other] = [...pointers.values()];
    const distance = Math.hypot(one[0] - other[0], one[1] - other[1]);
    if (pinch) zoomAt((one[0] + other[0]) / 2, (one[1] + other[1]) / 2, distance / pinch);
    pinch = distance;
    moved += 100;
  } else {
    moved += Math.abs(dx) + Math.abs(dy);
    if (moved > 5) move(view.x - dx / scale(), view.y + dy / scale(), view.zoom);
  }
});

function release(event) {
  if (!pointers.delete(event.pointerId) || !points || event.type === "pointercancel") return;
  pinch = 0;
  if (moved > 5 || pointers.size) return;
  const index = nearest(event.offsetX, event.offsetY, event.pointerType === "touch" ? 24 : NEAR);
  // A finger does not point before it touches: the first touch names, the second opens.
  if (index >= 0 && (event.pointerType !== "touch" || index === chosen)) open(index);
  else choose(index, { aloud: true });
}

canvas.addEventListener("pointerup", release);
canvas.addEventListener("pointercancel", release);
canvas.addEventListener("pointerleave", () => {
  if (!pointers.size && document.activeElement !== canvas) choose(-1);
});

canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  zoomAt(event.offsetX, event.offsetY, Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.002)));
}, { passive: false });

canvas.addEventListener("keydown", (event) => {
  if (!points || event.ctrlKey || event.metaKey || event.altKey) return;
  const middle = [canvas.clientWidth / 2, canvas.clientHeight / 2];
  const at = chosen >= 0 ? toScreen(chosen) : middle;
  const keys = {
    ArrowLeft: () => step(-1, 0),
    ArrowRight: () => step(1, 0),
    ArrowUp: () => step(0, 1),
    ArrowDown: () => step(0, -1),
    "+": () => zoomAt(...at, 1.5),
    "=": () => zoomAt(...at, 1.5),
    "-": () => zoomAt(...at, 1 / 1.5),
    0: () => move(0, 0, 1),
    Enter: () => chosen >= 0 && open(chosen),
    Escape: () => choose(-1),
    p: () => chosen >= 0 && nameOf(chosen).then((about) => about && start(chosen, about)),
  };
  const act = keys[event.key] || keys[event.key.toLowerCase()];
  if (!act) return;
  event.preventDefault();
  act();
});

document.querySelector(".map-tools").addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button || !points) return;
  const middle = [canvas.clientWidth / 2, canvas.clientHeight / 2];
  if (button.dataset.zoom === "all") move(0, 0, 1);
  else if (button.dataset.zoom) zoomAt(...middle, button.dataset.zoom === "in" ? 1.6 : 1 / 1.6);
  if (button.dataset.group) {
    const group = Number(button.dataset.group);
    const pressed = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(pressed));
    if (pressed) shown.add(group);
    else shown.delete(group);
    redraw();
  }
});

playsBox.addEventListener("change", () => {
  if (!playsBox.checked) sound.pause();
});

// --- The beginning ----------------------------------------------------------------------------

async function load() {
  const response = await fetch(canvas.dataset.points);
  const data = await response.json();
  if (response.status !== 200) {
    setTimeout(load, 2000);
    return;
  }
  data.buckets = {};
  data.byGroup = data.groups.map(() => []);
  for (let index = 0; index < data.clips.length; index += 1) {
    const bucket = bucketOf(data.x[index] / 1e4, data.y[index] / 1e4);
    (data.buckets[bucket] ||= []).push(index);
    data.byGroup[data.group[data.label[index]]].push(index);
  }
  points = data;
  shown = new Set(data.groups.keys());
  readColours();
  readAddress();
  redraw();
  canvas.dataset.ready = String(data.clips.length);
}

new ResizeObserver(redraw).observe(canvas);
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  readColours();
  redraw();
});
window.addEventListener("hashchange", () => points && readAddress());
load().catch(() => say("The points of the map could not be fetched. Reload the page."));
