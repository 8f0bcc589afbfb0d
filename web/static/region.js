// A waveform on a canvas, of which a part is chosen by dragging or by two fields of seconds.
// It draws peaks that somebody else has found: no sound is decoded here.

export class Region {
  // `begins` is the time at the left edge, for a clip in the middle of a recording.
  constructor(canvas, from, to, { onchange = () => {} } = {}) {
    Object.assign(this, { canvas, from, to, onchange, peaks: [], duration: 0, begins: 0 });
    let anchor = null;
    const at = (event) => this.begins
      + (Math.min(Math.max(event.offsetX, 0), canvas.clientWidth) / canvas.clientWidth) * this.duration;
    canvas.addEventListener("pointerdown", (event) => {
      if (!this.duration) return;
      canvas.setPointerCapture(event.pointerId);
      anchor = at(event);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (anchor === null) return;
      const other = at(event);
      if (Math.abs(other - anchor) > this.duration / 100) {
        this.choose(Math.min(anchor, other), Math.max(anchor, other));
      }
    });
    const end = () => { anchor = null; };
    canvas.addEventListener("pointerup", end);
    canvas.addEventListener("pointercancel", end);
    for (const field of [from, to]) field.addEventListener("input", () => this.changed());
    new ResizeObserver(() => this.draw()).observe(canvas);
    window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  show(peaks, duration, begins = 0) {
    Object.assign(this, { peaks, duration, begins });
    for (const field of [this.from, this.to]) field.max = String(begins + duration);
    this.draw();
  }

  choose(start, end) {
    this.from.value = start.toFixed(2);
    this.to.value = Math.min(end, this.begins + this.duration).toFixed(2);
    this.changed();
  }

  clear() {
    this.from.value = "";
    this.to.value = "";
    this.changed();
  }

  get part() {
    const start = this.from.value === "" ? this.begins : Number(this.from.value);
    const end = this.to.value === "" ? this.begins + this.duration : Number(this.to.value);
    return [start, end];
  }

  get isWhole() {
    return this.from.value === "" && this.to.value === "";
  }

  changed() {
    this.draw();
    this.onchange();
  }

  draw() {
    const { canvas, peaks } = this;
    const ratio = window.devicePixelRatio || 1;
    const width = canvas.clientWidth;
    const height = canvas.clientHeight;
    if (!width) return;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    const context = canvas.getContext("2d");
    context.scale(ratio, ratio);
    const style = getComputedStyle(canvas);
    const [start, end] = this.part;
    const left = ((start - this.begins) / this.duration) * width;
    const right = ((end - this.begins) / this.duration) * width;
    const accent = getComputedStyle(document.documentElement).getPropertyValue("--fill");
    if (!this.isWhole && this.duration) {
      context.fillStyle = accent;
      context.globalAlpha = 0.18;
      context.fillRect(left, 0, right - left, height);
      context.globalAlpha = 1;
    }
    const step = width / Math.max(peaks.length, 1);
    peaks.forEach((value, index) => {
      const x = index * step;
      const inside = x >= left - step && x <= right;
      context.fillStyle = inside ? accent : style.color;
      const tall = Math.max(1, value * (height - 8));
      context.fillRect(x, (height - tall) / 2, Math.max(1, step * 0.8), tall);
    });
  }
}
