// Lists the blobs of a key that signs in with a browser extension (NIP-07). The token stays in this page.
"use strict";
(() => {
  const [signIn, said, mine, more] = ["sign-in", "said", "mine", "more"].map((id) => document.getElementById(id));
  const page = 50;
  let key = "", token = "", last = "";

  const base64url = (text) =>
    btoa(String.fromCharCode(...new TextEncoder().encode(text)))
      .replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");

  async function sign() {
    const now = Math.floor(Date.now() / 1000);
    const event = await window.nostr.signEvent({
      kind: 24242, created_at: now, content: "List my blobs",
      tags: [["t", "list"], ["expiration", String(now + 3600)], ["server", location.hostname]],
    });
    key = event.pubkey;
    token = `Nostr ${base64url(JSON.stringify(event))}`;
  }

  function size(bytes) {
    const units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let unit = 0;
    for (; bytes >= 1024 && unit < units.length - 1; unit += 1) bytes /= 1024;
    return `${unit === 0 ? bytes : bytes.toFixed(1)} ${units[unit]}`;
  }

  function show(blob) {
    const item = document.createElement("li"), link = document.createElement("a");
    const picture = document.createElement("span"), what = document.createElement("span");
    const type = String(blob.type);
    link.href = `/${blob.sha256}`;
    picture.className = "picture";
    what.className = "what";
    what.textContent = `${size(blob.size)}, ${new Date(blob.uploaded * 1000).toLocaleDateString()}`;
    link.title = `${blob.sha256} ${type}`;
    if (type.startsWith("image/")) {
      const image = document.createElement("img");
      image.loading = "lazy";
      image.alt = type;
      image.src = link.href;
      picture.append(image);
    } else {
      picture.textContent = type;
    }
    link.append(picture, what);
    item.append(link);
    mine.append(item);
  }

  async function next() {
    const cursor = last === "" ? "" : `&cursor=${last}`;
    const answer = await fetch(`/list/${key}?limit=${page}${cursor}`, { headers: { authorization: token } });
    if (!answer.ok) throw new Error(answer.headers.get("x-reason") ?? `status ${answer.status}`);
    const blobs = await answer.json();
    blobs.forEach(show);
    last = blobs.length === 0 ? last : blobs[blobs.length - 1].sha256;
    more.hidden = blobs.length < page;
    said.textContent = mine.childElementCount === 0 ? "This key has no blobs here." : "";
  }

  async function run(step) {
    try {
      await step();
    } catch (error) {
      said.textContent = `That did not work: ${error.message ?? error}`;
    }
  }

  signIn.addEventListener("click", () => run(async () => {
    await sign();
    mine.replaceChildren();
    last = "";
    await next();
  }));
  more.addEventListener("click", () => run(next));

  // Extensions add their object at any time while the page loads.
  const offer = () => {
    if (window.nostr === undefined) return;
    signIn.hidden = false;
    said.textContent = "";
  };
  offer();
  window.addEventListener("load", offer);
})();
