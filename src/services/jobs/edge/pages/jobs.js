// Keeps a page of jobs up to date: an event of the stream renews its panels, at most once a second.
"use strict";

const RENEW_MS = 1000;     // least time between two renewals
const AGES_MS = 15000;     // without events the ages are renewed
const RETRY_MS = 3000;
const HIDDEN_MS = 60000;   // a hidden page closes its stream after this time
const EVENTS = ["job_created", "job_updated", "job_completed", "job_failed", "worker_online", "worker_offline", "reset"];

const link = document.getElementById("link");
const job = document.querySelector("[data-job]")?.dataset.job;
let source = null;
let retrying = 0;
let hiding = 0;
let planned = 0;
let renewing = false;
let again = false;

function say(state, text) {
  link.dataset.state = state;
  if (link.textContent !== text) link.textContent = text;
}

// A panel in which the user types stays as it is.
function isInUse(panel) {
  const active = document.activeElement;
  const isTyping = active && panel.contains(active) && active.matches("input, select, textarea");
  const isFilled = (input) => (input.files ? input.files.length > 0 : input.value !== input.defaultValue);
  return isTyping || [...panel.querySelectorAll("input[type=text], input[type=file]")].some(isFilled);
}

// Rows whose text has changed are marked for a moment; ages, which change by themselves, do not count.
function said(row) {
  const copy = row.cloneNode(true);
  for (const time of copy.querySelectorAll("time")) time.remove();
  return copy.textContent;
}

function replace(old, panel) {
  for (const details of old.querySelectorAll("details[open][id]")) {
    panel.querySelector(`#${CSS.escape(details.id)}`)?.setAttribute("open", "");
  }
  const before = new Set([...old.querySelectorAll("tbody tr")].map(said));
  const rows = [...panel.querySelectorAll("tbody tr")].filter((row) => !before.has(said(row)));
  for (const row of rows) row.classList.add("fresh");
  const active = old.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
  old.replaceWith(document.adoptNode(panel));
  if (active) panel.querySelector(`[href="${CSS.escape(active)}"]`)?.focus();
  setTimeout(() => { for (const row of rows) row.classList.remove("fresh"); }, 400);
}

async function renew() {
  if (document.hidden) return;
  if (renewing) { again = true; return; }
  renewing = true;
  try {
    const answer = await fetch(location.href, { headers: { accept: "text/html" } });
    if (answer.ok) {
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const panel of fresh.querySelectorAll("[id^=panel-]")) {
        const old = document.getElementById(panel.id);
        if (old && old.innerHTML !== panel.innerHTML && !isInUse(old)) replace(old, panel);
      }
    }
  } catch {
    // the connection state shows it
  }
  renewing = false;
  if (again) { again = false; renewSoon(); }
}

let last = 0;
function renewSoon() {
  if (planned) return;
  const wait = Math.max(0, last + RENEW_MS - Date.now());
  planned = setTimeout(() => { planned = 0; last = Date.now(); renew(); }, wait);
}

function connect() {
  clearTimeout(retrying);
  if (source) source.close();
  source = new EventSource("/events");
  // What happened before the stream began is not in it.
  source.onopen = () => { say("live", "live"); renewSoon(); };
  source.onerror = () => {
    say("waiting", "reconnecting…");
    // The browser reconnects by itself, but not after an answer like 503.
    if (source.readyState === EventSource.CLOSED) retrying = setTimeout(connect, RETRY_MS);
  };
  for (const name of EVENTS) {
    source.addEventListener(name, (event) => {
      const of = JSON.parse(event.data).data.job_id;
      if (job === undefined || of === undefined || String(of) === job) renewSoon();
    });
  }
}

// A file that is too large is named before it is sent; while it is sent, the button says so. Panels are replaced, so
// the document listens.
document.addEventListener("change", ({ target }) => {
  if (!target.matches("input[data-bytes-max]")) return;
  const isTooLarge = [...target.files].some((file) => file.size > Number(target.dataset.bytesMax));
  target.setCustomValidity(isTooLarge ? "This file is too large." : "");
});
document.addEventListener("submit", ({ target }) => {
  const button = target.querySelector("input[data-bytes-max]") && target.querySelector("button");
  if (!button) return;
  button.dataset.title = button.textContent;
  button.textContent = "Sending…";
});
addEventListener("pageshow", () => {
  for (const button of document.querySelectorAll("button[data-title]")) button.textContent = button.dataset.title;
});

// Pages without a place for the state are not live.
if (link) {
  document.addEventListener("visibilitychange", () => {
    clearTimeout(hiding);
    if (document.hidden) {
      hiding = setTimeout(() => { source.close(); clearTimeout(retrying); say("paused", "paused"); }, HIDDEN_MS);
    } else {
      if (source.readyState === EventSource.CLOSED) connect();
      renewSoon();
    }
  });
  say("waiting", "connecting…");
  connect();
  setInterval(renewSoon, AGES_MS);
}
