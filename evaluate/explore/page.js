"use strict";

const byId = (name) => document.getElementById(name);
const tab = Array.from(crypto.getRandomValues(new Uint8Array(8)), (byte) => byte.toString(16).padStart(2, "0")).join("");
const images = { from: "", to: "" };
let about = null;
let waiting = false;
let again = false;
let shown = "";
let classOf = null;

function say(text) {
  byId("message").textContent = text;
}

function number(name) {
  const value = Number(byId(name).value);
  return Number.isFinite(value) ? value : 0;
}

function whole(name) {
  return Math.max(0, Math.floor(number(name)));
}

function subject(side) {
  const kind = byId(side).value;
  if (kind === "image") return { kind, number: 0, image: images[side] };
  return { kind, number: whole(`${side}-number`), image: "" };
}

function view() {
  const ranges = document.querySelectorAll("#sliders input");
  const moves = Array.from(ranges, (one) => ({
    group: Number(one.dataset.group), channel: Number(one.dataset.channel), value: Number(one.value),
  })).filter((one) => one.value !== 0);
  const redraw = Array.from(document.querySelectorAll("#redraw input:checked"), (one) => Number(one.value));
  const other = byId("to").value === "" ? null : subject("to");
  return {
    subject: subject("from"), other, share: other === null ? 0 : number("share"), redraw, seed: whole("seed"), moves,
    label: about.classes.length ? Number(byId("label").value) : -1,
    guidance_mean: about.guided ? number("guidance-mean") : 0,
    guidance_variance: about.guided ? number("guidance-variance") : 0,
    left: about.beyond ? whole("left") : 0, right: about.beyond ? whole("right") : 0,
  };
}

async function ask(path, body) {
  let answer;
  try {
    answer = await fetch(path, { method: "POST", body });
  } catch {
    throw new Error("The server does not answer. Start 'lvae explore' again and open its new address.");
  }
  const found = await answer.json().catch(() => ({ error: `The server answers with ${answer.status}.` }));
  if (!answer.ok) throw new Error(found.error || `The server answers with ${answer.status}.`);
  return found;
}

// One request at a time; what changes meanwhile is asked for when the picture is there.
async function paint() {
  if (about === null) return;
  if (byId("from").value === "image" && !images.from) {
    say("Drop an image in, or choose one.");
    return;
  }
  if (byId("to").value === "image" && !images.to) {
    say("Choose an image to go towards.");
    return;
  }
  if (waiting) {
    again = true;
    return;
  }
  waiting = true;
  byId("drop").setAttribute("aria-busy", "true");
  do {
    again = false;
    const began = performance.now();
    const wanted = JSON.stringify(view());
    if (wanted === shown) break;
    try {
      const found = await ask(`picture?tab=${tab}`, wanted);
      shown = wanted;
      takeClass(found.label);
      byId("picture").src = found.picture;
      byId("save").href = found.picture;
      byId("command").value = found.command;
      say("");
      document.body.dataset.milliseconds = String(Math.round(performance.now() - began));
      document.body.dataset.pictures = String(Number(document.body.dataset.pictures || 0) + 1);
    } catch (error) {
      shown = "";
      say(error.message);
    }
  } while (again);
  waiting = false;
  byId("drop").setAttribute("aria-busy", "false");
}

// An image of the dataset brings its class along; another one may be chosen then.
function takeClass(label) {
  const place = byId("from").value === "index" ? whole("from-number") : null;
  if (place === null || label < 0 || !about.classes.length) {
    classOf = null;
  } else if (classOf !== place) {
    classOf = place;
    byId("label").value = String(label);
    again = true;
  }
}

async function upload(file, side) {
  if (!file) return;
  try {
    const found = await ask(`image?name=${encodeURIComponent(file.name)}`, file);
    images[side] = found.image;
    byId(side).value = "image";
    arrange();
    paint();
  } catch (error) {
    say(error.message);
  }
}

function show(name, visible) {
  byId(name).hidden = !visible;
}

function arrange() {
  for (const [side, file] of [["from", "file-label"], ["to", "to-file-label"]]) {
    const kind = byId(side).value;
    show(`${side}-number-label`, kind === "sample" || kind === "index");
    show(file, about.encodes && (side === "from" || kind === "image"));
  }
  show("class-row", about.classes.length > 0);
  show("guidance-row", about.guided);
  show("beyond", about.beyond);
  show("hint", about.encodes);
}

function slider(channel, farthest) {
  const label = document.createElement("label");
  const input = document.createElement("input");
  const output = document.createElement("output");
  const name = document.createElement("span");
  const rate = document.createElement("small");
  label.className = "slider";
  rate.textContent = `${channel.nats < 10 ? channel.nats.toFixed(1) : Math.round(channel.nats)} nats`;
  name.append(`group ${channel.group}, channel ${channel.channel} `, rate);
  label.append(name, input, output);
  Object.assign(input, { className: "both", type: "range", min: -farthest, max: farthest, step: 0.1, value: 0 });
  Object.assign(input.dataset, { group: channel.group, channel: channel.channel });
  return label;
}

function build() {
  byId("about").textContent = `${about.run}, ${about.size} pixels`;
  for (const one of about.resolutions) {
    const label = document.createElement("label");
    const input = document.createElement("input");
    Object.assign(input, { type: "checkbox", value: one.resolution, id: `redraw-${one.resolution}` });
    label.append(input, ` redraw ${one.resolution}×${one.resolution}`);
    byId("redraw").append(label);
    const title = document.createElement("h2");
    title.textContent = `${one.resolution}×${one.resolution}`;
    byId("sliders").append(title, ...one.channels.map((channel) => slider(channel, about.farthest)));
  }
  byId("label").append(new Option("none", "-1"), ...about.classes.map((name, index) => new Option(name, String(index))));
  byId("column").textContent = String(about.size / about.places);
  byId("left").max = byId("right").max = String(about.places);
  if (!about.images) {
    for (const side of ["from", "to"]) byId(side).querySelector("[value=index]").remove();
  }
  for (const side of ["from", "to"]) byId(side).querySelector("[value=index]")?.append(` of ${about.images}`);
  if (!about.encodes) {
    for (const side of ["from", "to"]) byId(side).querySelector("[value=image]").remove();
  }
}

function reset() {
  for (const one of document.querySelectorAll("input[type=range]")) one.value = 0;
  for (const one of document.querySelectorAll("#redraw input")) one.checked = false;
  for (const name of ["guidance-mean", "guidance-variance", "seed"]) byId(name).value = 0;
  byId("to").value = "";
  tell();
}

function tell() {
  for (const one of document.querySelectorAll(".slider input")) {
    const value = Number(one.value);
    one.nextElementSibling.textContent = one.className === "both" && value > 0 ? `+${one.value}` : one.value;
    const at = (100 * (value - one.min)) / (one.max - one.min);
    const zero = one.className === "both" ? 50 : 0;
    one.style.setProperty("--begin", `${Math.min(at, zero)}%`);
    one.style.setProperty("--end", `${Math.max(at, zero)}%`);
  }
}

function listen() {
  for (const kind of ["input", "change"]) {
    byId("controls").addEventListener(kind, (event) => {
      if (event.target.type === "file") return;
      arrange();
      tell();
      paint();
    });
  }
  byId("file").addEventListener("change", (event) => upload(event.target.files[0], "from"));
  byId("to-file").addEventListener("change", (event) => upload(event.target.files[0], "to"));
  byId("next-seed").addEventListener("click", () => {
    byId("seed").value = String(whole("seed") + 1);
    paint();
  });
  for (const side of ["from", "to"]) {
    byId(`${side}-another`).addEventListener("click", () => {
      const most = byId(side).value === "index" ? about.images : 1e6;
      const before = whole(`${side}-number`);
      const found = Math.floor(Math.random() * most);
      byId(`${side}-number`).value = found === before ? (before + 1) % most : found;
      paint();
    });
  }
  byId("sliders").addEventListener("dblclick", (event) => {
    if (event.target.type !== "range") return;
    event.target.value = 0;
    tell();
    paint();
  });
  byId("copy").addEventListener("click", copy);
  byId("reset").addEventListener("click", () => {
    reset();
    arrange();
    paint();
  });
  const drop = byId("drop");
  for (const kind of ["dragenter", "dragover"]) {
    drop.addEventListener(kind, (event) => {
      event.preventDefault();
      drop.classList.add("over");
    });
  }
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    if (about.encodes) upload(event.dataTransfer.files[0], "from");
  });
  byId("command").addEventListener("focus", (event) => event.target.select());
}

async function copy() {
  byId("command").select();
  try {
    await navigator.clipboard.writeText(byId("command").value);
  } catch {
    document.execCommand("copy"); // where the page came from another machine, without encryption
  }
  byId("copy").textContent = "Copied";
  setTimeout(() => (byId("copy").textContent = "Copy"), 1500);
}

async function start() {
  try {
    about = await (await fetch("about")).json();
  } catch {
    say("The server does not answer. Start 'lvae explore' again and open its new address.");
    return;
  }
  build();
  tell();
  arrange();
  listen();
  paint();
}

start();
