// The page of the live server: one long poll brings pictures, /state says what they show, and every control, key and
// click is a POST, so that all viewers agree. The table of controls, with its keys, comes from the state: nothing of it
// is repeated here. One thread, no framework; text is set as text, never as HTML.
"use strict";

const kPollMs = 10000;         // a poll waits so long for news
const kStateMs = 500;          // numbers of sections and counters are read at least this often while pictures come
const kLongestWaitMs = 5000;   // between two attempts to reconnect
const kText = { bright: "#ebebf0", vector: "#c8c8ce", quiet: "#96969e", red: "#ff5c5c", amber: "#f0b450" };
// What belongs to the view stands under the picture, what is done at once in the header, the rest in the form.
const kOfView = new Set(["next", "solo_toggle", "pan", "solo", "page", "zoom", "pan_x", "pan_y"]);
const kInHeader = new Set(["paused", "recording"]);
const kArrows = { left: [-1, 0], right: [1, 0], up: [0, -1], down: [0, 1] };
const kArrowSigns = { left: "←", right: "→", up: "↑", down: "↓" };

let state = null;              // the newest answer of /state
let seen = null;               // the newest answer of /frame: the next one is about something newer
let shown = null;              // the picture on the canvas: {sequence, layout, step, image}
let connection = "connecting"; // live, reconnecting, gone, refused, full
let closed = false;            // by the key for it: nothing is asked for until somebody comes back
let endedRun = "";             // nonce of a run that said goodbye
let poll = null;               // AbortController of the waiting request
let stateTime = -Infinity;     // of the last /state, on the clock of performance.now()
let arrivals = [];             // times of the last pictures

const byId = (id) => document.getElementById(id);
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
// All addresses are relative: a reverse proxy may have put the page below a path that the server does not know.
const url = (path, query) => `${path}?${new URLSearchParams(query)}`;
const ended = () => state !== null && state.run.nonce === endedRun;

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

// The DOM is touched only where something differs: a screen reader repeats what is set again.
function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
function setHidden(element, hidden) {
  if (element.hidden !== hidden) element.hidden = hidden;
}
// parts: [text, class] or text; a class "strong" makes a <b>.
function setParts(element, parts, separator = "") {
  const key = JSON.stringify(parts);
  if (element.dataset.parts === key) return;
  element.dataset.parts = key;
  element.replaceChildren();
  parts.forEach((part, i) => {
    const [text, kind] = Array.isArray(part) ? part : [part, ""];
    if (i > 0) element.append(separator);
    element.append(kind === "strong" ? make("b", {}, text) : kind ? make("span", { class: kind }, text) : text);
  });
}

// ---- Numbers in words, as on films.

function shortNumber(value) {
  if (value === null || value === undefined) return "NaN";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 99.5 && size < 99999.5) return value.toFixed(0);
  if (size >= 0.00095 && size < 99.5) return String(Number(value.toPrecision(2)));
  return value.toExponential(1).replace(".0e", "e").replace("e+", "e");
}
const grouped = (n) => Math.round(n).toLocaleString("en-US");
const percent = (share) => `${shortNumber(share * 100)} %`;
const times = (shape) => shape.join("×") || "scalar";
const plural = (n, word) => `${grouped(n)} ${word}${n === 1 ? "" : "s"}`;
const rangeText = (s) => (s.min === null || s.max === null ? "" : `${shortNumber(s.min)} … ${shortNumber(s.max)}`);
const notFinite = (s) =>
  [s.nans > 0 && `${grouped(s.nans)} NaN`, s.infs > 0 && `${grouped(s.infs)} Inf`,
   s.beyond_float32 > 0 && `${grouped(s.beyond_float32)} beyond float32`].filter(Boolean).join(" ");
const absence = (s) => (s.absent_since === null ? "" : `absent since step ${grouped(s.absent_since)}`);
function sizeText(bytes) {
  for (const [unit, size] of [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]]) {
    if (bytes >= size) return `${Number((bytes / size).toPrecision(3))} ${unit}`;
  }
  return `${bytes} bytes`;
}
function modeText(picture) {
  const mode = picture.settings.mode;
  if (mode === "variance") return `variance of ${plural(picture.history_size, "picture")}`;
  if (mode === "change" && picture.change_steps > 0) return `change over ${plural(picture.change_steps, "step")}`;
  return mode;
}
function scalingText(scaling) {
  return { section: "scaled by section", all: "one scale" }[scaling] || scaling;
}

// ---- Talking to the server.

function toast(text, bad = false) {
  const element = make("p", bad ? { class: "bad" } : {}, text);
  byId("toasts").append(element);
  setTimeout(() => element.remove(), bad ? 8000 : 5000);
}

async function post(path, body) {
  try {
    const response = await fetch(path, {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
    const answer = await response.json().catch(() => ({}));
    if (!response.ok) throw new Error(answer.error || `the server answered ${response.status}`);
    if (answer.path) toast(`saved ${answer.path}`);
    await readState();
  } catch (error) {
    toast(error instanceof TypeError ? "not done: the run does not answer" : error.message, true);
    if (state) syncControls();  // back to what is true
  }
}
const set = (name, value) => post("settings", { [name]: value });

async function readState() {
  const response = await fetch("state", { cache: "no-store", signal: AbortSignal.timeout(15000) });
  if (!response.ok) throw refusal(response);
  const answer = await response.json();
  const anotherRun = state && state.run.nonce !== answer.run.nonce;
  if (state && !anotherRun && answer.revision < state.revision) return;  // an older answer that came late
  if (anotherRun) seen = shown = null;
  state = answer;
  stateTime = performance.now();
  showState();
}

function refusal(response) {
  const error = new Error(`the server answered ${response.status}`);
  error.status = response.status;
  return error;
}

// Which format a picture is asked for. What the socket says about its address does not help, a tunnel is loopback too:
// so it starts with png, and takes raw, which costs the server nothing, where a raw picture would come in a part of the
// time between two pictures. Where one takes longer than that time twice in a row (once may be a busy machine, for which
// png is more work), it waits longer before the next trial.
const link = {
  format: "png", rawFrom: 0, penaltyMs: 5000, slow: 0,
  limitMs: () => Math.min(150, Math.max(20, 600 / Math.max(1, state ? state.settings.fps : 10))),
  measure(bytes, rawBytes, ms) {
    if (this.format === "raw") {
      this.slow = ms > 2 * this.limitMs() ? this.slow + 1 : 0;
      if (this.slow > 1) this.rawFailed();
    } else if (performance.now() > this.rawFrom && (rawBytes / bytes) * Math.max(ms, 0.5) < this.limitMs()) {
      this.format = "raw";
    }
  },
  rawFailed() {
    this.format = "png";
    this.slow = 0;
    this.rawFrom = performance.now() + this.penaltyMs;
    this.penaltyMs = Math.min(120000, this.penaltyMs * 2);
  },
};

// {width, height, data, channels}: rows top to bottom, 3 or 4 bytes a pixel, as it came.
async function toImage(bytes, format, width, height) {
  if (format === "raw") return { width, height, data: new Uint8Array(bytes), channels: 3 };
  const bitmap = await createImageBitmap(new Blob([bytes], { type: `image/${format}` }), { colorSpaceConversion: "none" });
  const reader = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  reader.drawImage(bitmap, 0, 0);
  bitmap.close();
  return { width, height, data: reader.getImageData(0, 0, width, height).data, channels: 4 };
}

// Waits for something newer than `seen`. Returns what came, or nothing where it should be asked again.
async function ask() {
  const { format } = link, query = { format, timeout_ms: kPollMs };
  if (seen) Object.assign(query, { after: seen.sequence, revision: seen.revision });
  const { signal } = (poll = new AbortController()), abort = poll.abort.bind(poll);
  const silence = setTimeout(abort, kPollMs + 8000, new Error("no answer"));  // a dead tunnel is silent
  try {
    const response = await fetch(url("frame", query), { cache: "no-store", signal });
    if (!response.ok) throw refusal(response);
    const header = (name) => Number(response.headers.get(`X-Beholder-${name}`));
    const news = { format, sequence: header("Sequence"), revision: header("Revision"), layout: header("Layout"),
      step: header("Step"), width: header("Width"), height: header("Height"), ended: header("Ended") === 1, bytes: null };
    if (response.status === 200) {
      const began = performance.now();
      const slow = format === "raw" ? setTimeout(abort, 1500, "slow") : 0;
      news.bytes = await response.arrayBuffer().finally(() => clearTimeout(slow));
      link.measure(news.bytes.byteLength, news.width * news.height * 3, performance.now() - began);
    }
    seen = news;
    return news;
  } catch (error) {
    if (signal.reason !== "slow") throw error;
    link.rawFailed();
    return null;
  } finally {
    clearTimeout(silence);
  }
}

async function show(news) {
  const image = news.bytes && (await toImage(news.bytes, news.format, news.width, news.height));
  setConnection("live");
  const known = state && state.revision >= news.revision && (state.picture || !image);
  // Captions need the places of this layout: then the state comes first. Other numbers may follow.
  if (!known || (image && state.picture.layout_id !== news.layout)) await readState();
  else if (performance.now() - stateTime > kStateMs) readState().catch(() => {});
  if (image) arrived({ sequence: news.sequence, layout: news.layout, step: news.step, image });
}

function arrived(next) {
  const now = performance.now();
  arrivals = arrivals.filter((time) => now - time < 3000).concat(now);
  shown = next;
  redraw();
  showMeters();
  if (pointer && now - pointer.asked > 250) askValue();
}

// Hidden tabs ask for nothing: the server encodes only what somebody looks at, and a browser has six connections for
// all tabs of a run.
async function untilWatched() {
  while (closed || document.hidden) {
    await new Promise((resolve) => {
      document.addEventListener("visibilitychange", resolve, { once: true });
      document.addEventListener("beholder-open", resolve, { once: true });
    });
  }
}

async function watch() {
  let waitMs = 0, asked = null;
  for (;;) {
    await untilWatched();
    try {
      if (connection !== "live") await readState();  // another run may stand there now
      const news = await (asked || ask());
      asked = null;
      if (!news) continue;
      if (news.ended) {
        endedRun = state.run.nonce;
        throw new Error("the run has ended");
      }
      if (!document.hidden) {
        // The next one is asked for before this one is drawn: so a run that ends is heard in time.
        asked = ask();
        asked.catch(() => {});  // awaited in the next round
      }
      await show(news);
      waitMs = 0;
    } catch (error) {
      asked = null;
      if (error.name === "AbortError") continue;  // closed
      // A run that is killed says no goodbye, and a tunnel that has lost it looks the same from here.
      setConnection(error.status === 401 || error.status === 403 ? "refused" : error.status === 503 ? "full"
        : waitMs < 1000 ? "reconnecting" : "gone");
      waitMs = Math.min(kLongestWaitMs, Math.max(250, waitMs * 2));
      await sleep(error.status === 503 ? 2000 : waitMs);
    }
  }
}

function setConnection(next) {
  if (connection === next) return;
  connection = next;
  showStatus();
}

// ---- Drawing the picture: nearest where it is enlarged, the mean of what is covered where it is reduced.

const canvas = byId("picture"), context = canvas.getContext("2d", { alpha: false });
let drawing = 0;
let place = null;  // of the picture on the canvas: {scale: canvas pixels per picture pixel, ratio: canvas per CSS pixel}
let pointed = "";  // name of the section under the pointer, here or in the list

function redraw() {
  drawing ||= requestAnimationFrame(() => {
    drawing = 0;
    if (shown) draw();
  });
}

// The film's status line has no text in a live picture: the page has its own below, so it is cut off.
function visibleHeight() {
  const footer = layoutOfShown() ? state.picture.footer : null;
  return footer && footer[3] > 0 && footer[1] + footer[3] >= shown.image.height - 1 ? footer[1] : shown.image.height;
}
const layoutOfShown = () => (state && state.picture && state.picture.layout_id === shown.layout ? state.picture : null);

function fit(width, height) {
  const frame = byId("frame"), ratio = window.devicePixelRatio || 1;
  const room = Math.max(260, window.innerHeight - (frame.getBoundingClientRect().top + window.scrollY) - 96);
  const tall = height > 1.2 * width;  // the classic column: as wide as it is, the page scrolls
  const scale = tall ? Math.min(1, frame.clientWidth / width) : Math.min(frame.clientWidth / width, room / height);
  const w = Math.max(1, Math.round(width * scale * ratio)), h = Math.max(1, Math.round(height * scale * ratio));
  if (canvas.width !== w || canvas.height !== h) {
    canvas.width = w;
    canvas.height = h;
    canvas.style.width = `${w / ratio}px`;
    canvas.style.height = `${h / ratio}px`;
  }
  place = { scale: w / width, ratio };
}

function draw() {
  const { image } = shown, height = visibleHeight();
  fit(image.width, height);
  const scaled = canvas.width < image.width ? reduced : enlarged;
  context.putImageData(scaled(image, height, canvas.width, canvas.height), 0, 0);
  const picture = layoutOfShown();
  if (picture && !picture.message) for (const section of picture.sections) drawText(picture, section);
}

// For each of `to` pixels: the first of the `from` pixels that it covers, and the weights of that and those behind it.
function spans(from, to) {
  const most = Math.ceil(from / to) + 1;
  const first = new Int32Array(to), count = new Int32Array(to), weights = new Float32Array(to * most);
  for (let i = 0; i < to; ++i) {
    const begin = (i * from) / to, end = Math.min(from, ((i + 1) * from) / to);
    first[i] = Math.floor(begin);
    for (let k = first[i]; k < end - 1e-9; ++k) {
      weights[i * most + count[i]++] = ((Math.min(end, k + 1) - Math.max(begin, k)) * to) / from;
    }
  }
  return { most, first, count, weights };
}

// Plain loops over typed arrays: it runs for every picture, and this form takes a few milliseconds.
function reduced(image, height, toWidth, toHeight) {
  const { width, data, channels } = image, result = new ImageData(toWidth, toHeight), to = result.data;
  const across = spans(width, toWidth), down = spans(height, toHeight);
  const length = width * channels, row = new Float32Array(length);
  for (let y = 0, o = 0; y < toHeight; ++y) {
    row.fill(0);
    for (let k = 0; k < down.count[y]; ++k) {
      const weight = down.weights[y * down.most + k], begin = (down.first[y] + k) * length;
      for (let i = 0; i < length; ++i) row[i] += weight * data[begin + i];
    }
    for (let x = 0; x < toWidth; ++x) {
      let r = 0, g = 0, b = 0, from = across.first[x] * channels;
      const begin = x * across.most, end = begin + across.count[x];
      for (let k = begin; k < end; ++k, from += channels) {
        const weight = across.weights[k];
        r += weight * row[from];
        g += weight * row[from + 1];
        b += weight * row[from + 2];
      }
      to[o++] = r;  // clamped and rounded by the array
      to[o++] = g;
      to[o++] = b;
      to[o++] = 255;
    }
  }
  return result;
}

function enlarged(image, height, toWidth, toHeight) {
  const { width, data, channels } = image, result = new ImageData(toWidth, toHeight), to = result.data;
  const column = Int32Array.from({ length: toWidth }, (_, x) => Math.floor(((x + 0.5) * width) / toWidth) * channels);
  for (let y = 0, o = 0; y < toHeight; ++y) {
    const row = Math.floor(((y + 0.5) * height) / toHeight) * width * channels;
    for (let x = 0; x < toWidth; ++x) {
      const from = row + column[x];
      to[o++] = data[from];
      to[o++] = data[from + 1];
      to[o++] = data[from + 2];
      to[o++] = 255;
    }
  }
  return result;
}

// Letters of a size in CSS pixels, whatever the picture's scale.
function setFont(size) {
  context.font = `${size * place.ratio}px system-ui, sans-serif`;
  context.textBaseline = "middle";
}
const widthOf = (text) => context.measureText(text).width;
const onCanvas = (rect) => rect.map((n) => n * place.scale);

// Names lose their front, component by component; the last two stay. What is shorter has room where longer ones have.
function shortened(name, room) {
  const parts = name.split("."), most = Math.max(0, parts.length - 2);
  const without = (first) => (first > 0 ? "…" : "") + parts.slice(first).join(".");
  let low = 0, high = most;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (widthOf(without(middle)) <= room) high = middle;
    else low = middle + 1;
  }
  return without(low);
}

// How much of a tensor is shown: "shown 64×209".
function shownText({ complete, sampled, grid: [rows, columns] }) {
  return complete ? "" : `${sampled ? "sample" : "shown"} ${rows === 1 ? columns : `${rows}×${columns}`}`;
}

// The parts of a line that have room in `free` beside its name, the most important first: the first that has none, and
// all after it, are left out. In the order in which they stand.
function withRoom(parts, free, gap) {
  let used = 0, full = false;
  const chosen = parts.filter((part) => {
    if (!part.text || full) return false;
    part.width = widthOf(part.text);
    full = used + gap + Math.max(part.width, part.reserve || 0) > free;
    if (!full) used += gap + part.width;
    return !full;
  });
  return { used, chosen: chosen.sort((a, b) => (a.place || 0) - (b.place || 0)) };
}

function drawParts(parts, left, right, middle, gap) {
  for (const part of parts) {
    context.fillStyle = part.color;
    if (part.right) right -= part.width;
    context.fillText(part.text, part.right ? right : left + gap, middle);
    if (part.right) right -= gap;
    else left += gap + part.width;
  }
}

function drawText(picture, section) {
  const [x, y, w, h] = onCanvas(section.caption), strip = h / place.ratio;
  context.save();
  context.beginPath();
  if (section.name === pointed && !picture.settings.solo) {
    const [ax, ay, aw, ah] = onCanvas(section.area);
    context.strokeStyle = kText.bright;
    context.lineWidth = place.ratio;
    context.strokeRect(ax - 2, ay - 2, aw + 4, ah + 4);
  }
  if (strip >= 8.5) {
    context.rect(x, y, w, h);
    context.clip();
    drawCaption(picture, section, x, y + h / 2, w, Math.min(13, Math.max(8.5, strip - 3)));
  } else if (picture.layout === "classic" ? picture.settings.info : strip > 0) {
    drawLabel(section);
  }
  context.restore();
}

// One line. How much is shown goes last of all: the name loses its beginning before.
function drawCaption(picture, section, x, middle, width, size) {
  const { info } = picture.settings, gap = 8 * place.ratio, bad = notFinite(section);
  if (section.caption_inline) width = Math.min(width, onCanvas(section.picture)[0] - x - 5 * place.ratio);
  setFont(size);
  const besideName = (text) => (text ? gap + widthOf(text) : 0);
  const shown = info ? shownText(section) : "", shownRoom = besideName(shown), badRoom = besideName(bad);
  const fitted = (room) => {
    setFont(size);
    const name = shortened(section.name, room);
    for (let smaller = size - 0.5; widthOf(name) > room && smaller >= 7; smaller -= 0.5) setFont(smaller);
    return name;
  };
  let name = fitted(width - shownRoom);
  const alone = widthOf(name) > width - shownRoom;
  if (alone) name = fitted(width);
  const nameWidth = widthOf(name), badFits = !alone && nameWidth + shownRoom + badRoom <= width;
  context.fillStyle = bad && !badFits ? kText.red : section.caption_inline ? kText.vector : kText.bright;
  context.fillText(name, x, middle);
  if (alone) return;
  setFont(size);
  const parts = [  // in the order of importance
    { text: shown, color: kText.quiet, place: 1 },
    { text: bad, color: kText.red, right: true },
    { text: absence(section), color: kText.amber, right: true },
  ];
  if (info) {
    parts.push({ text: times(section.shape), color: kText.quiet }, { text: section.shown_as, color: kText.quiet, place: 2 });
    // With room for the widest range, so that it does not come and go with its digits.
    parts.push({ text: rangeText(section), color: kText.quiet, right: true, reserve: widthOf("-0.00 … -0.00") });
    if (section.dead_share > 0) parts.push({ text: `dead ${percent(section.dead_share)}`, color: kText.amber, right: true });
    if (section.relative_change !== null) {
      parts.push({ text: `changed by ${percent(section.relative_change)}`, color: kText.quiet, right: true });
    }
  }
  drawParts(withRoom(parts, width - nameWidth, gap).chosen, x + nameWidth, x + width, middle, gap);
}

// Over the values, where the layout or the scale leaves no strip for text: what a caption says but for the range.
function drawLabel(section) {
  const [x, y, w, h] = onCanvas(section.picture), { ratio } = place, height = 13 * ratio, padding = 3 * ratio;
  if (h < 2 * height || w < 40 * ratio) return;
  setFont(10);
  const gap = 8 * ratio, room = w - 2 * padding, bad = notFinite(section), shown = shownText(section);
  const shownRoom = shown ? gap + widthOf(shown) : 0;
  let name = shortened(section.name, room - shownRoom);
  const alone = widthOf(name) > room - shownRoom;
  if (alone) name = shortened(section.name, room);
  const nameWidth = widthOf(name);
  const { used, chosen } = withRoom([  // in the order of importance
    { text: shown, color: kText.vector, place: 1 },
    { text: bad, color: kText.red, place: 4 },
    { text: absence(section), color: kText.amber, place: 3 },
    { text: times(section.shape), color: kText.bright },
    { text: section.shown_as, color: kText.vector, place: 2 },
  ], alone ? 0 : room - nameWidth, gap);
  context.rect(x, y, Math.min(w, nameWidth + used + 2 * padding), height);
  context.fillStyle = "rgb(12 12 16 / 74%)";
  context.fill();
  context.clip();
  context.fillStyle = bad && !chosen.some((part) => part.text === bad) ? kText.red : kText.bright;
  context.fillText(name, x + padding, y + height / 2);
  drawParts(chosen, x + padding + nameWidth, x + w - padding, y + height / 2, gap);
}

// ---- Pointing at the picture.

let pointer = null;  // in pixels of the picture: {x, y, asked: time of the last question, value}
const kPointHere = "Point at a section for its numbers; click it to see it alone.";

function sectionAt(x, y) {
  const within = ([left, top, w, h]) => x >= left && x < left + w && y >= top && y < top + h;
  const picture = shown && layoutOfShown();
  return picture ? picture.sections.find((section) => within(section.area)) : undefined;
}

function point(event) {
  if (!place || !shown) return;
  const box = canvas.getBoundingClientRect(), toPicture = place.ratio / place.scale;
  const x = Math.floor((event.clientX - box.left) * toPicture), y = Math.floor((event.clientY - box.top) * toPicture);
  pointer = { x, y, asked: pointer ? pointer.asked : -Infinity, value: null };
  pointAt((sectionAt(x, y) || { name: "" }).name);
  clearTimeout(point.timer);
  point.timer = setTimeout(askValue, 90);  // when it rests
}

function pointAt(name) {
  if (pointed === name) return;
  pointed = name;
  for (const [rowName, row] of rows) row.button.classList.toggle("pointed", rowName === name);
  showInspect();
  redraw();
}

async function askValue() {
  const asked = pointer, section = asked && sectionAt(asked.x, asked.y);
  if (!section || closed || connection !== "live") return;
  const [x, y, w, h] = section.picture;
  if (asked.x < x || asked.x >= x + w || asked.y < y || asked.y >= y + h) return;
  asked.asked = performance.now();
  try {
    const response = await fetch(url("value", { seq: shown.sequence, x: asked.x, y: asked.y }), { cache: "no-store" });
    const answer = response.status === 200 ? await response.json() : null;
    if (pointer !== asked) return;
    if (answer && answer.index) asked.value = answer;
    else if (response.status !== 204) asked.value = null;  // 204: mostly a newer picture; it asks again
  } catch {
    return;  // the poll says that nobody answers
  }
  showInspect();
}

function showInspect() {
  const section = state && state.picture && state.picture.sections.find((one) => one.name === pointed);
  if (!section) return setParts(byId("inspect"), [kPointHere]);
  const parts = [[section.name, "strong"], `${section.kind}, ${times(section.shape)} ${section.dtype} on ${section.device}`];
  const { value } = pointer || {};
  if (value && value.name === section.name) {
    parts.push([`[${value.index.join(", ")}] = ${value.text}`, "strong"]);
  }
  if (section.shown_as) parts.push([section.shown_as, "warn"]);
  parts.push(...numbersOf(section));
  if (section.reading) parts.push(section.reading);
  setParts(byId("inspect"), parts, "  ·  ");
}

// What is known about a section, as parts: [text, class].
function numbersOf(s) {
  const part = (needed, text, kind = "number") => (needed ? [[text(), kind]] : []);
  return [
    [rangeText(s) || "nothing finite", "number"],
    ...part(s.mean !== null, () => `mean ${shortNumber(s.mean)}`),
    ...part(s.std !== null, () => `std ${shortNumber(s.std)}`),
    ...part(s.zeros > 0, () => plural(s.zeros, "zero")),
    ...part(notFinite(s), () => notFinite(s), "bad"),
    ...part(absence(s), () => absence(s), "warn"),
    ...part(s.relative_change !== null, () => `update ratio ${percent(s.relative_change)}`),
    ...part(s.dead_share, () => `dead ${percent(s.dead_share)}`, "warn"),
    ...part(!s.complete, () => `${s.sampled ? "sample of" : "shown"} ${grouped(s.count)} of ${grouped(s.values_total)}`),
  ];
}

// A click on a section shows it alone, another one goes back.
function soloToggle(name) {
  const alone = state.settings.solo, known = state.names.includes(name) && name !== alone;
  post("action", known ? { control: "solo_toggle", section: name } : { control: "solo_toggle" });
}

// ---- The list of sections.

const rows = new Map();  // name -> {item, button, title, shape, more}
let order = { by: "", reverse: false, time: -Infinity };
const kOrders = {  // larger first, but for names
  name: null,
  range: (s) => s.max - s.min,
  NaN: (s) => s.nans + s.infs,
  "update ratio": (s) => s.relative_change ?? -1,
};

function makeRow(name) {
  const button = make("button", { type: "button", "data-section": name });
  const row = { item: make("li", {}, button), button, shape: make("span", { class: "shape" }), more: make("span", { class: "more" }) };
  button.append(make("b", {}, name), row.shape, row.more);
  button.addEventListener("click", () => soloToggle(name));
  for (const event of ["pointerenter", "focus"]) button.addEventListener(event, () => { pointer = null; pointAt(name); });
  for (const event of ["pointerleave", "blur"]) button.addEventListener(event, () => pointAt(""));
  return row;
}

function showSections() {
  const { names } = state, infos = new Map((state.picture ? state.picture.sections : []).map((s) => [s.name, s]));
  const known = new Set(names);
  for (const [name, row] of rows) {
    if (known.has(name)) continue;
    row.item.remove();
    rows.delete(name);
    if (pointed === name) pointAt("");  // nothing tells that the pointer has left it
  }
  const hasNew = names.some((name) => !rows.has(name));
  for (const name of names) {
    if (!rows.has(name)) rows.set(name, makeRow(name));
    const row = rows.get(name), info = infos.get(name);
    setText(row.shape, info ? times(info.shape) : "");
    setParts(row.more, info ? numbersOf(info) : state.settings.solo ? [] : ["not in this picture"], " ");
    row.button.setAttribute("aria-pressed", String(state.settings.solo === name));
  }
  setText(byId("sections-title"), plural(names.length, "section"));
  // Numbers move all the time: rows do not, while somebody is about to choose one.
  const list = byId("sections"), busy = list.matches(":hover, :focus-within");
  if (hasNew || (!busy && performance.now() - order.time > 1500)) sortSections(infos);
}

function sortSections(infos = new Map((state.picture ? state.picture.sections : []).map((s) => [s.name, s]))) {
  const sign = order.reverse ? -1 : 1, key = kOrders[order.by];
  const value = (name) => (infos.has(name) ? key(infos.get(name)) : -Infinity);
  const sorted = [...state.names];
  if (order.by === "name") sorted.sort((a, b) => sign * a.localeCompare(b, "en", { numeric: true }));
  else if (key) sorted.sort((a, b) => sign * (value(b) - value(a) || 0));
  order.time = performance.now();
  const list = byId("sections"), now = [...list.children];
  if (sorted.length === now.length && sorted.every((name, i) => rows.get(name).item === now[i])) return;
  const focused = document.activeElement;
  list.append(...sorted.map((name) => rows.get(name).item));
  if (list.contains(focused)) focused.focus();  // moving an element takes its focus away
}

// First click sorts, a second one the other way round, a third one goes back to the network's order.
function makeSortButtons() {
  for (const by of Object.keys(kOrders)) {
    const button = make("button", { type: "button", "data-by": by, "aria-pressed": "false" }, by);
    button.addEventListener("click", () => {
      order = order.by !== by ? { by, reverse: false } : order.reverse ? { by: "", reverse: false } : { by, reverse: true };
      for (const one of byId("sort").children) {
        const active = one.dataset.by === order.by, down = (order.by === "name") === order.reverse;
        one.setAttribute("aria-pressed", String(active));
        setText(one, one.dataset.by + (active ? (down ? " ↓" : " ↑") : ""));
      }
      if (state) sortSections();
    });
    byId("sort").append(button);
  }
}

// ---- Controls, made from the table of the state.

let table = "";             // the table that they were made from
const controls = new Map(); // name -> {control, sync(value)}
const keys = new Map();     // key -> {control, direction}

const hints = (control) => (control.keys ? control.keys.split(" ").map((key) => make("kbd", { "aria-hidden": "true" }, key)) : []);

function actionButton(text, control, run, withKeys = true) {
  const button = make("button", { type: "button", "data-control": control.name, title: control.help }, text);
  if (withKeys) button.append(...hints(control));
  button.addEventListener("click", run);
  return button;
}

function switchButton(control) {
  const button = actionButton(control.label, control, () => set(control.name, !state.settings[control.name]));
  return { element: button, sync: (on) => button.setAttribute("aria-pressed", String(Boolean(on))) };
}

function labelled(control, input, ...more) {
  input.dataset.control = control.name;
  input.title = control.help;
  return make("label", {}, make("span", {}, control.label, ...more, ...hints(control)), input);
}

function inputFor(control) {
  const { name } = control;
  if (control.type === "choice") {
    const select = make("select", {}, ...control.choices.map((choice) => make("option", {}, choice)));
    select.addEventListener("change", () => set(name, select.value));
    return { element: labelled(control, select), sync: (value) => { select.value = value; } };
  }
  if (control.type === "switch") {
    const box = make("input", { type: "checkbox", role: "switch" });
    box.addEventListener("change", () => set(name, box.checked));
    return { element: labelled(control, box), sync: (on) => { box.checked = on; } };
  }
  const number = control.type === "number", slider = number && !control.whole;
  const input = make("input", number
    ? { type: slider ? "range" : "number", min: control.minimum, max: control.maximum, step: slider ? 0.5 : 1 }
    : { type: "search", maxlength: control.maximum || 1000, placeholder: control.help, spellcheck: "false", autocomplete: "off" });
  const output = make("output");
  let timer = 0;  // while it runs, what stands there is newer than the state
  const send = () => {
    clearTimeout(timer);
    timer = 0;
    if (number && input.value === "") return;  // somebody is about to type another one
    set(name, number ? Number(input.value) : input.value);
  };
  input.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(send, slider ? 80 : 350);
    if (slider) setText(output, input.value);
  });
  input.addEventListener("change", () => {
    if (timer) send();
    if (number && input.value === "") input.value = state.settings[name];
  });
  const sync = (value) => {
    if (timer || (number && input.value === "" && input === document.activeElement)) return;
    if (input.value !== String(value)) input.value = value;
    if (slider) setText(output, String(value));
  };
  return { element: slider ? labelled(control, input, output) : labelled(control, input), sync };
}

function makeControls() {
  const form = byId("controls"), actions = byId("actions"), view = byId("view");
  form.replaceChildren();
  view.replaceChildren();
  for (const button of actions.querySelectorAll("[data-control]")) button.remove();
  controls.clear();
  keys.clear();
  for (const control of state.controls) {
    for (const { key, direction } of control.bindings || []) keys.set(key, { control, direction });
    if (kOfView.has(control.name)) {
      view.append(...viewButtons(control));
    } else if (control.type === "action") {
      // Its key alone closes: a browser's tab has a button for that already.
      if (control.name !== "quit") actions.append(actionButton(control.label, control, () => act(control, 1)));
    } else {
      const made = kInHeader.has(control.name) ? switchButton(control) : inputFor(control);
      controls.set(control.name, { control, sync: made.sync });
      if (kInHeader.has(control.name)) actions.insertBefore(made.element, byId("recordings"));
      else form.append(made.element);
    }
  }
  makeHelp();
}

function viewButtons(control) {
  const button = (text, label, run) => {
    const made = actionButton(text, control, run, false);
    made.setAttribute("aria-label", label);
    return made;
  };
  const stepButton = (text, label, direction) => button(text, label, () => act(control, direction));
  switch (control.name) {
    case "next": return [stepButton("‹", "previous section or page", -1), stepButton("›", "next section or page", 1)];
    case "solo_toggle": return [actionButton(control.label, control, () => act(control, 1))];
    case "zoom": return [stepButton("−", "zoom out", -1), stepButton("+", "zoom in", 1)];
    case "pan": return Object.keys(kArrows).map((key) => button(kArrowSigns[key], `pan ${key}`, () => act(control, 1, key)));
    default: return [];  // their values show in the picture
  }
}

function syncControls() {
  const text = JSON.stringify(state.controls);
  if (text !== table) {
    table = text;
    makeControls();
  }
  for (const [name, { sync }] of controls) sync(state.settings[name]);
  const solo = state.settings.solo !== "", pages = state.picture && state.picture.pages > 1;
  for (const button of byId("view").children) {
    const name = button.dataset.control;
    if (name === "solo_toggle") button.setAttribute("aria-pressed", String(solo));
    setHidden(button, name === "next" ? !solo && !pages : name !== "solo_toggle" && !solo);
  }
}

// ---- Help, from the same table.

function rangeOf(control) {
  if (control.type === "choice") return control.choices.join(", ");
  if (control.type === "switch") return "off, on";
  if (control.type === "number") return `${control.minimum} … ${control.maximum}`;
  return control.type === "text" ? "text" : "";
}

function makeHelp() {
  const word = (value) => (value === true ? "on" : value === false ? "off" : value === undefined ? "" : String(value));
  byId("help").querySelector("tbody").replaceChildren(...state.controls.map((control) => make("tr", { "data-control": control.name },
    make("td", {}, ...hints(control)), make("th", { scope: "row" }, control.label), make("td", {}, rangeOf(control)),
    make("td", {}, word(state.defaults[control.name])), make("td", {}, control.help))));
}

function toggleHelp() {
  const help = byId("help");
  if (help.open) help.close();
  else help.showModal();
}

// ---- Keys.

function keyOf(event) {
  const names = { " ": "space", Escape: "Esc", ArrowLeft: "left", ArrowRight: "right", ArrowUp: "up", ArrowDown: "down" };
  return names[event.key] || (event.key.length === 1 ? event.key.toLowerCase() : "");
}

// Whether the focused element has a use of its own for the key.
function belongsTo(element, key) {
  if (element.matches("input[type=search], input[type=number]")) return key !== "Esc";
  if (key === "space") return element.matches("button, summary, select, a, input");
  return key in kArrows && element.matches("select, input, .scroll");
}

function onKey(event) {
  byId("hint").hidden = true;
  if (event.ctrlKey || event.altKey || event.metaKey || event.isComposing || !state) return;
  if (closed) {
    if (event.key !== "Tab" && event.key !== "Shift") {
      event.preventDefault();
      reopen();
    }
    return;
  }
  const key = keyOf(event), bound = keys.get(key), menu = byId("recordings");
  if (key === "Esc" && (byId("help").open || menu.open)) {  // what stands in front goes first
    event.preventDefault();
    if (menu.open) menu.querySelector("summary").focus();
    menu.open = false;
    byId("help").close();
    return;
  }
  if (!bound || belongsTo(document.activeElement, key)) return;
  if (key in kArrows && !state.settings.solo) return;  // the page scrolls
  event.preventDefault();
  if (key === "Esc" && document.activeElement.matches("input")) document.activeElement.blur();
  act(bound.control, bound.direction, key);
}

function act(control, direction, key) {
  switch (control.name) {
    case "help": return toggleHelp();
    case "quit": return close();
    case "solo_toggle": return soloToggle(pointed);
    case "pan": return post("action", { control: "pan", dx: kArrows[key][0], dy: kArrows[key][1] });
    default:
      if (control.type === "switch") return set(control.name, !state.settings[control.name]);
      return post("action", { control: control.name, direction });
  }
}

function close() {
  closed = true;
  if (poll) poll.abort();
  if (byId("help").open) byId("help").close();
  byId("closed").hidden = false;
  byId("closed").focus();
  showStatus();
}

function reopen() {
  closed = false;
  byId("closed").hidden = true;
  showStatus();
  document.dispatchEvent(new Event("beholder-open"));
}

// ---- What the state says.

function showState() {
  const logdir = state.run.logdir.replace(/\/+$/, "");
  setText(byId("run"), logdir.split("/").slice(-2).join("/"));
  byId("run").title = state.run.logdir;
  const message = state.picture ? state.picture.message : "No picture yet: the first one comes with update().";
  setText(byId("message"), message);
  setHidden(byId("message"), !message);
  syncControls();
  showSections();
  showStatus();
  showMeters();
  showLegend();
  showInspect();
  showRecordings();
  showAbout();
  redraw();
}

function showStatus() {
  const chips = [];
  if (closed) chips.push(["closed", "chip warn"]);
  else if (connection === "connecting") chips.push(["connecting", "chip"]);
  else if (connection === "refused") chips.push(["another run is here: open the URL with a token that it logged", "chip warn"]);
  else if (ended()) chips.push(["run ended", "chip warn"]);
  else if (connection === "reconnecting") chips.push(["reconnecting", "chip warn"]);
  else if (connection === "gone") chips.push(["run ended or out of reach: reconnecting", "chip warn"]);
  else if (connection === "full") chips.push(["too many viewers, trying again", "chip warn"]);
  else {
    if (state.settings.paused) chips.push(["paused", "chip warn"]);
    if (state.waiting) chips.push(["waiting for the next update", "chip warn"]);
    if (state.settings.fps === 0) chips.push(["FPS is 0: nothing new is shown", "chip warn"]);
    if (state.picture && state.picture.notice) chips.push([state.picture.notice, "chip warn"]);
    if (chips.length === 0) chips.push(["live", "chip live"]);
  }
  setParts(byId("status"), chips);
  const name = state ? `Beholder · ${byId("run").textContent}` : "Beholder";
  const title = chips[0][0] === "live" ? name : `${chips[0][0]} · ${name}`;
  if (document.title !== title) document.title = title;
}

// Pictures a second on this page, over the last three seconds.
function fpsHere() {
  const recent = arrivals.filter((time) => performance.now() - time < 3000);
  return recent.length < 2 ? 0 : (1000 * (recent.length - 1)) / (recent[recent.length - 1] - recent[0]);
}

function showMeters() {
  const { counters } = state, step = Math.max(shown ? shown.step : 0, state.picture ? state.picture.step : 0);
  const parts = ["step ", [grouped(step), "strong"], "  ·  ", [fpsHere().toFixed(1), "strong"], ` of ${counters.fps_wished} FPS`];
  if (counters.dropped > 0) parts.push("  ·  ", [`${grouped(counters.dropped)} dropped`, "warn"]);
  setParts(byId("meters"), parts);
}

// The values of both ends of the colours, where all sections agree on them.
function scaleEnds(picture) {
  const [first, ...others] = picture.sections;
  if (!first) return ["low", "high"];
  const same = (s) => s.scale_low === first.scale_low && s.scale_high === first.scale_high;
  if (others.every(same) && first.scale_low !== null) return [shortNumber(first.scale_low), shortNumber(first.scale_high)];
  const centred = picture.settings.scaling === "zero-centred" || picture.settings.mode === "change";
  return centred ? ["each section: −max", "max"] : ["each section: low", "high"];
}

function showLegend() {
  const { picture } = state;
  setHidden(byId("legend"), !picture);
  if (!picture) return;
  const { settings } = picture, parts = [[settings.values, "strong"], modeText(picture), scalingText(settings.scaling),
    plural(picture.total_sections, "section")];
  if (picture.pages > 1) parts.push([`page ${picture.page + 1} of ${picture.pages}${picture.page > 0 ? " (film stays on page 1)" : ""}`, "warn"]);
  if (settings.solo) parts.push([`${settings.solo} alone`, "strong"]);
  if (settings.solo && settings.zoom !== 1) parts.push(`zoom ${shortNumber(settings.zoom)}`);
  if (settings.filter) parts.push([`filter ${settings.filter}`, "warn"]);
  setParts(byId("caption"), parts, "  ·  ");
  canvas.setAttribute("aria-label", `Picture of the network: ${byId("caption").textContent}`);
  const [low, high] = scaleEnds(picture);
  setText(byId("low"), low);
  setText(byId("high"), high);
  const bar = byId("colours");
  if (bar.dataset.colours === picture.colours) return;
  bar.dataset.colours = picture.colours;
  const colours = atob(picture.colours), image = new ImageData(256, 1);
  for (let i = 0; i < 256; ++i) {
    for (let k = 0; k < 3; ++k) image.data[4 * i + k] = colours.charCodeAt(3 * i + k);
    image.data[4 * i + 3] = 255;
  }
  bar.getContext("2d").putImageData(image, 0, 0);
}

function showRecordings() {
  const menu = byId("recordings"), films = state.recordings, key = JSON.stringify(films);
  if (menu.dataset.films === key) return;
  menu.dataset.films = key;
  setText(menu.querySelector("summary"), films.length > 0 ? `Recordings (${films.length})` : "Recordings");
  menu.querySelector("p").hidden = films.length > 0;
  menu.querySelector("ul").replaceChildren(...films.map(({ name, bytes, time }) => make("li", {},
    make("a", { href: `recordings/${encodeURIComponent(name)}`, download: name }, name),
    make("span", {}, `${sizeText(bytes)}, ${new Date(time * 1000).toLocaleTimeString()}`))));
}

function showAbout() {
  const { counters: c, run } = state, list = byId("about").querySelector("dl");
  if (!byId("about").open) return;
  const used = (bytes, most) => `${sizeText(bytes)} of ${sizeText(most)}`;
  const lines = [
    ["overhead of the training", `${percent(c.overhead)} of at most ${percent(c.max_overhead)}; a due update() takes ${shortNumber(c.update_seconds * 1000)} ms`],
    ["CPU time beside it", `${percent(c.background)} of a core, at most ${percent(c.max_background)}`],
    ["FPS", `${shortNumber(c.fps_real)} made, ${shortNumber(fpsHere())} here (${link.format}), ${c.fps_wished} wished`],
    ["device memory", used(c.device_bytes, c.max_device_bytes)],
    ["host memory", used(c.host_bytes, c.max_host_bytes)],
    ["updates", `${grouped(c.updates)}: ${grouped(c.captured)} captured, ${grouped(c.rendered)} pictures, ${grouped(c.dropped)} dropped`],
    ["viewers", `${c.viewers} of at most ${c.max_viewers}`],
    ["errors", c.errors > 0 ? `${grouped(c.errors)}, the last: ${c.last_error}` : "none"],
    ...state.callbacks.map((b) => [`callback ${b.name}`, `${b.open ? "open" : "closed"}, ${plural(b.shown, "picture")}, ${grouped(b.dropped)} dropped` +
      (b.errors > 0 ? `, ${plural(b.errors, "error")}, the last: ${b.last_error}` : "")]),
    ...state.not_shown.map((one) => [`not shown: ${one.name}`, one.reason]),
    ["run", `${run.directory}, process ${run.pid}, since ${new Date(run.started * 1000).toLocaleString()}, Beholder ${run.version}`],
  ];
  list.replaceChildren(...lines.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
}

// ---- Begin.

function listen() {
  document.addEventListener("keydown", onKey);
  // What was clicked would keep the focus, and the space bar would press it again instead of pausing. Who moves by the
  // keyboard is not concerned.
  document.addEventListener("mousedown", (event) => { if (event.target.closest("button, summary")) event.preventDefault(); });
  let byPointer = false;
  document.addEventListener("pointerdown", () => { byPointer = true; }, true);
  document.addEventListener("keydown", () => { byPointer = false; }, true);
  byId("controls").addEventListener("change", (event) => {
    if (byPointer && event.target.matches("select, [type=checkbox], [type=range]")) event.target.blur();
  });
  document.addEventListener("click", (event) => {
    if (!event.target.closest("#recordings")) byId("recordings").open = false;
    if (event.target === byId("help")) byId("help").close();  // beside the table
  });
  byId("controls").addEventListener("submit", (event) => event.preventDefault());
  byId("unfold").addEventListener("click", () => {
    const open = byId("controls").classList.toggle("open");
    byId("unfold").setAttribute("aria-expanded", String(open));
    redraw();
  });
  byId("close-help").addEventListener("click", toggleHelp);
  byId("closed").addEventListener("click", reopen);
  byId("about").addEventListener("toggle", () => state && showAbout());
  canvas.addEventListener("pointermove", point);
  canvas.addEventListener("pointerleave", () => { pointer = null; pointAt(""); });
  canvas.addEventListener("click", (event) => {
    point(event);
    if (!state || !shown) return;
    if (state.settings.solo) soloToggle("");
    else if (pointed) soloToggle(pointed);
  });
  new ResizeObserver(redraw).observe(byId("frame"));
  window.addEventListener("resize", redraw);
}

function showHint() {
  byId("hint").replaceChildren(make("kbd", {}, "h"), " for help");
  byId("hint").hidden = false;
  setTimeout(() => { byId("hint").hidden = true; }, 8000);
}

makeSortButtons();
listen();
showHint();
watch();
// Counters go on while no picture comes.
setInterval(() => {
  if (!closed && !document.hidden && connection === "live" && performance.now() - stateTime > 2000) readState().catch(() => {});
}, 1000);
