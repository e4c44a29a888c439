// Keeps the page of blobs up to date by polling its panels.
"use strict";

const RENEW_MS = 5000;
const link = document.getElementById("link");

function say(state, text) {
  link.dataset.state = state;
  if (link.textContent !== text) link.textContent = text;
}

async function renew() {
  if (document.hidden) return;
  let answer;
  try {
    answer = await fetch("/blobs/panels");
    if (!answer.headers.get("content-type").startsWith("text/html")) throw new Error("no panels");
  } catch {
    say("waiting", "reconnecting…");
    return;
  }
  say("live", "live");
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const panel of fresh.querySelectorAll("[id^=panel-]")) {
    const old = document.getElementById(panel.id);
    if (old && old.outerHTML !== panel.outerHTML) old.replaceWith(document.adoptNode(panel));
  }
}

document.addEventListener("visibilitychange", renew);
renew();
setInterval(renew, RENEW_MS);
