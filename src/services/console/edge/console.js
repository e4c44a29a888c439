// Keeps the page up to date: entries and counters by server-sent events, the other panels by polling.
"use strict";

const SHOWN_MAX = 150;     // entries on the page
const WAITING_MAX = 1000;  // entries queued while paused
const RENEW_MS = 5000;
const RETRY_MS = 3000;
const HIDDEN_MS = 60000;   // a hidden page closes its stream after this time

const feed = document.getElementById("feed");
const hold = document.getElementById("hold");
const link = document.getElementById("link");
let lastEventId = feed.dataset.lastEventId;
let source = null;
let waiting = [];
let passed = 0;
let flushing = false;
let retrying = 0;
let hiding = 0;

function say(state, text) {
  link.dataset.state = state;
  if (link.textContent !== text) link.textContent = text;
}

function grouped(number) {
  return String(Math.round(number)).replace(/\B(?=(\d{3})+$)/g, "\u202f");
}

function rate(number) {
  if (number > 0 && number < 0.05) return "<0.1";
  return number < 99.95 ? number.toFixed(1) : grouped(number);
}

function element(name, className, ...children) {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

// Members of details that hold unix seconds, as in format.rs.
const TIMES = ["asked_at", "created_at", "expires_at", "generated_at", "since", "until"];
const YEAR_10000 = 253402300800;

function time(name, value) {
  const isTime = TIMES.includes(name) && Number.isInteger(value) && value >= 0 && value < YEAR_10000;
  return isTime ? new Date(value * 1000).toISOString().slice(0, 16).replace("T", " ") : null;
}

function line(entry, isCalm) {
  const recorded = element("time", "", entry.recorded_at.slice(11, 19));
  recorded.dateTime = entry.recorded_at;
  const detail = element("p", "detail");
  for (const [name, value] of Object.entries(entry.detail || {})) {
    const isEmpty = value === null || (typeof value === "object" && !Array.isArray(value) && Object.keys(value).length === 0);
    if (isEmpty) continue;
    const text = time(name, value) ?? (typeof value === "string" ? value : JSON.stringify(value));
    detail.append(element("span", "", name.replaceAll("_", " ") + " ", element("i", "", text)));
  }
  const what = element("p", "", element("b", "", entry.kind.replaceAll("_", " ")), " ", element("span", "subject", entry.subject));
  const made = element("li", isCalm ? "fresh" : "", recorded, what, detail);
  made.dataset.kind = entry.kind;
  made.dataset.position = entry.position;
  made.dataset.live = "";
  return made;
}

function flush() {
  flushing = false;
  if (hold.getAttribute("aria-pressed") === "true") {
    hold.textContent = `Resume (${grouped(waiting.length + passed)} new)`;
    return;
  }
  const skipped = passed + Math.max(0, waiting.length - SHOWN_MAX);
  const shown = waiting.slice(-SHOWN_MAX);
  waiting = [];
  passed = 0;
  document.getElementById("feed-empty").hidden = true;
  if (skipped > 0) feed.prepend(element("li", "passed", element("p", "", `${grouped(skipped)} entries skipped`)));
  // Animate single entries only: with many at once the page would flicker.
  for (const entry of shown) feed.prepend(line(entry, shown.length <= 4));
  while (feed.childElementCount > SHOWN_MAX) feed.lastElementChild.remove();
}

function flushSoon() {
  if (!flushing) setTimeout(flush, 100);
  flushing = true;
}

function connect() {
  clearTimeout(retrying);
  if (source) source.close();
  source = new EventSource("/events" + (lastEventId ? "?last_event_id=" + encodeURIComponent(lastEventId) : ""));
  source.onopen = () => say("live", "live");
  source.onerror = () => {
    say("waiting", "reconnecting…");
    // The browser reconnects by itself, but not after an answer like 503.
    if (source.readyState === EventSource.CLOSED) retrying = setTimeout(connect, RETRY_MS);
  };
  source.addEventListener("entry", (event) => {
    lastEventId = event.lastEventId;
    waiting.push(JSON.parse(event.data));
    if (waiting.length > WAITING_MAX) { waiting.shift(); passed += 1; }
    flushSoon();
  });
  source.addEventListener("totals", (event) => {
    if (event.lastEventId) lastEventId = event.lastEventId;
    const totals = JSON.parse(event.data);
    const live = (name, text) => {
      const place = document.querySelector(`[data-live="${name}"]`);
      if (place && place.textContent !== text) place.textContent = text;
    };
    live("rate", rate(totals.events_per_second));
    for (const name of ["events", "sightings", "day_events", "day_sightings"]) live(name, grouped(totals[name]));
  });
  // Entries were skipped: reload to get the newest ones.
  source.addEventListener("reset", () => { source.close(); setTimeout(() => location.reload(), 500); });
}

async function renew() {
  if (document.hidden) return;
  let answer;
  try {
    answer = await fetch("/panels");
    if (!answer.headers.get("content-type").startsWith("text/html")) return;
  } catch {
    return; // the connection state shows it
  }
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const panel of fresh.querySelectorAll("[id^=panel-]")) {
    const old = document.getElementById(panel.id);
    if (old && old.outerHTML !== panel.outerHTML) old.replaceWith(document.adoptNode(panel));
  }
}

hold.hidden = false;
hold.addEventListener("click", () => {
  const isHeld = hold.getAttribute("aria-pressed") !== "true";
  hold.setAttribute("aria-pressed", String(isHeld));
  hold.textContent = isHeld ? "Resume" : "Pause";
  if (!isHeld) flush();
});
document.addEventListener("visibilitychange", () => {
  clearTimeout(hiding);
  if (document.hidden) {
    hiding = setTimeout(() => { source.close(); clearTimeout(retrying); say("paused", "paused"); }, HIDDEN_MS);
  } else {
    if (source.readyState === EventSource.CLOSED) connect();
    renew();
  }
});
say("waiting", "connecting…");
connect();
setInterval(renew, RENEW_MS);
