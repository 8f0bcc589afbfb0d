// Choosing a part of a clip on its waveform. A clip lasts ten seconds at most, so it may be decoded
// here; nothing is fetched before the part is opened.
import { Region } from "./region.js";

const canvas = document.getElementById("wave");
const form = canvas.closest("form");
const region = new Region(canvas, form.elements.from, form.elements.to);
const details = canvas.closest("details");
const COUNT = 500;
let asked = false;

async function load() {
  if (asked || !details.open) return;
  asked = true;
  const response = await fetch(canvas.dataset.sound);
  if (!response.ok) return;
  const decoder = new OfflineAudioContext(1, 1, 16000);
  const sound = await decoder.decodeAudioData(await response.arrayBuffer());
  const samples = sound.getChannelData(0);
  const step = Math.max(1, Math.floor(samples.length / COUNT));
  const peaks = [];
  for (let start = 0; start < samples.length; start += step) {
    let most = 0;
    for (let at = start; at < Math.min(start + step, samples.length); at += 1) {
      most = Math.max(most, Math.abs(samples[at]));
    }
    peaks.push(most);
  }
  const largest = Math.max(...peaks) || 1;
  region.show(peaks.map((value) => value / largest), sound.duration, Number(canvas.dataset.start));
  canvas.dataset.ready = "1";
}

details.addEventListener("toggle", load);
load();
