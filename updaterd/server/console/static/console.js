/* SPDX-License-Identifier: Apache-2.0 */
// Keeps a page true while it is open. Without it, the page is as it was when it came.
"use strict";

const state = document.getElementById("live");
let isBusy = false, isDue = false;

function say(text) {
  if (state.textContent !== text) state.textContent = text;
}

async function refresh() {
  isDue = true;
  if (isBusy || document.hidden) return;
  isBusy = true;
  try {
    while (isDue) {
      isDue = false;
      const answer = await fetch(location.href, { redirect: "manual" });
      if (answer.type === "opaqueredirect") { location.reload(); return; }
      if (!answer.ok) { say("The server cannot answer now"); return; }
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const part of document.querySelectorAll("[data-live]")) {
        const other = fresh.getElementById(part.id);
        // where the keyboard is, nothing moves
        if (other === null || part.contains(document.activeElement)) continue;
        if (other.innerHTML !== part.innerHTML) part.replaceChildren(...other.childNodes);
      }
    }
  } catch {
    say("Not live: the server does not answer");
  } finally {
    isBusy = false;
  }
}

if (document.querySelector("[data-live]") !== null) {
  const stream = new EventSource("/console/live");
  stream.addEventListener("open", () => { say("Live"); });
  stream.addEventListener("changed", refresh);
  stream.addEventListener("error", () => { say("Not live: connecting"); });
  document.addEventListener("visibilitychange", () => { if (isDue) refresh(); });
}
