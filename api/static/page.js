"use strict";

// Columns that every row shares or that stand elsewhere on the page are left out of the preview.
const LEFT_OUT = new Set(["post_id", "latitude", "longitude", "window_end", "released_at"]);
const TITLES = {
  window_start: "Window start", data_through: "Newest reading", is_provisional: "Provisional",
  completeness: "Complete", is_suppressed: "Suppressed", is_late_release: "Late release",
  vehicle_count: "Vehicles", bearing_deg: "Bearing", direction: "Direction", ci95: "95 % within ±",
};
// What was measured comes first, what is said about the row after it.
const ABOUT = ["completeness", "is_provisional", "window_start", "data_through"];
const SHOWN_ROWS = 25;
const PERIOD_MS = 3000;
const byId = (id) => document.getElementById(id);

let product = "weather";
let feed = null;
let before = new Map();
let places = new Map();
let etag = null;
let round = 0;

function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  if (text !== null) made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function title(field) {
  if (TITLES[field.name]) return TITLES[field.name];
  const words = field.name.replace(/_(c|pct|ms|deg|mm|hpa|ug_m3|index)$/, (unit) => (unit === "_index" ? " index" : ""));
  return words.replaceAll("_", " ").replace(/^(no2|o3|so2|co|uv|pm2 5|pm10)/, (name) => name.toUpperCase().replace(" ", "."))
    .replace(/^./, (first) => first.toUpperCase());
}

function shownUnit(unit) {
  return { degC: "°C", deg: "°", "ug/m3": "µg/m³", "1": "", UTC: "UTC" }[unit] ?? unit;
}

function said(value, field, row) {
  if (value === null) return field.name === "vehicle_count" && row.is_suppressed ? "suppressed" : "missing";
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (field.unit === "UTC") return value.slice(11, 19);
  if (field.name === "completeness") return `${Math.round(value * 100)} %`;
  if (typeof value === "number") return Number.isInteger(value) ? String(value) : value.toFixed(1);
  return value;
}

function rowKey(row) {
  return row.direction === undefined ? row.post_id : `${row.post_id}/${row.direction}`;
}

function matching() {
  const wanted = byId("find").value.trim().toLowerCase();
  if (!wanted) return feed.rows;
  return feed.rows.filter((row) => `${row.post_id} ${places.get(row.post_id) ?? ""}`.toLowerCase().includes(wanted));
}

function render() {
  if (!feed) return;
  const rank = (field) => ABOUT.indexOf(field.name);
  const columns = feed.fields.filter((field) => !LEFT_OUT.has(field.name)).sort((one, other) => rank(one) - rank(other));
  const isNumber = (field) => feed.rows.some((row) => typeof row[field.name] === "number");
  const head = element("tr", null);
  head.append(element("th", "Post", { scope: "col" }));
  for (const field of columns) {
    const cell = element("th", title(field), { scope: "col", title: field.description });
    if (isNumber(field)) cell.className = "number";
    const unit = shownUnit(field.unit);
    if (unit && field.name !== "completeness") cell.append(element("span", unit, { class: "unit" }));
    head.append(cell);
  }
  byId("table").tHead.replaceChildren(head);
  const rows = matching();
  const now = new Map();
  byId("table").tBodies[0].replaceChildren(...rows.slice(0, SHOWN_ROWS).map((row) => {
    const line = element("tr", null);
    const name = element("th", row.post_id, { scope: "row" });
    name.append(element("span", places.get(row.post_id) ?? "", { class: "place" }));
    line.append(name);
    for (const field of columns) {
      const text = said(row[field.name], field, row);
      const cell = element("td", text);
      const key = `${rowKey(row)} ${field.name}`;
      now.set(key, text);
      if (typeof row[field.name] === "number") cell.className = "number";
      if (row[field.name] === null) cell.className = isNumber(field) ? "number missing" : "missing";
      if (before.has(key) && before.get(key) !== text) cell.classList.add("changed");
      line.append(cell);
    }
    return line;
  }));
  before = now;
  byId("table-caption").textContent = `${feed.title}: ${feed.description}`;
  byId("shown").textContent = `${Math.min(rows.length, SHOWN_ROWS)} of ${rows.length} rows` +
    (rows.length === feed.rows.length ? "." : ` that match, ${feed.rows.length} in the feed.`);
  byId("fields").tBodies[0].replaceChildren(...feed.fields.map((field) => {
    const line = element("tr", null);
    line.append(element("th", field.name, { scope: "row" }), element("td", field.unit), element("td", field.description));
    return line;
  }));
  byId("attribution").textContent = feed.attribution;
}

function say(text) {
  // only a change is announced to a screen reader, not every refresh
  if (byId("state").textContent !== text) byId("state").textContent = text;
}

function sayFreshness() {
  if (!feed) return;
  const clock = (moment) => (moment ? `${moment.slice(0, 10)} ${moment.slice(11, 19)} UTC` : "none yet");
  const age = Math.max(0, Math.round((Date.now() - Date.parse(feed.generated_at)) / 1000));
  byId("freshness").textContent = `Generated ${clock(feed.generated_at)}, ${age} s ago. ` +
    `Newest reading: ${clock(feed.data_through)}. Closed through: ${clock(feed.closed_through)}. ` +
    `Windows of ${feed.period_s >= 60 ? `${feed.period_s / 60} min` : `${feed.period_s} s`}.`;
}

async function load() {
  const mine = ++round;
  const asked = product;
  try {
    const response = await fetch(`/latest/${asked}.json`, { cache: "no-cache" });
    const isNew = response.headers.get("ETag") !== etag;
    const body = isNew || !response.ok ? await response.json() : null;
    if (mine !== round) return;
    if (!response.ok) {
      say(body.detail);
      return;
    }
    if (isNew) {
      feed = body;
      etag = response.headers.get("ETag");
      render();
    }
    say("");
  } catch (error) {
    if (mine === round) say(`The feed cannot be reached (${error.message}).`);
  }
  sayFreshness();
}

async function loadPlaces() {
  const response = await fetch("/lampposts.geojson");
  if (!response.ok) return;
  for (const post of (await response.json()).features) {
    places.set(post.properties.post_id, `${post.properties.name_en}, ${post.properties.district}`);
  }
  render();
}

byId("controls").addEventListener("submit", (event) => event.preventDefault());
byId("find").addEventListener("input", render);
for (const choice of document.querySelectorAll("input[name=product]")) {
  choice.addEventListener("change", () => {
    product = choice.value;
    feed = null;
    etag = null;
    before = new Map();
    load();
  });
}
product = document.querySelector("input[name=product]:checked").value;
setInterval(() => { if (byId("live").checked && !document.hidden) load(); }, PERIOD_MS);
setInterval(sayFreshness, 1000);
load();
loadPlaces();
