/* SPDX-License-Identifier: Apache-2.0 */
// Keeps a page true while it is open. Without it, the page is as it was when it came.
"use strict";

const state = document.getElementById("live");
let isBusy = false, isDue = false, stream = null;

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
      if (stream?.readyState === EventSource.OPEN) say("Live");
    }
  } catch {
    say("Not live: the server does not answer");
  } finally {
    isBusy = false;
  }
}

// A browser has six connections to a server. Pages that were left, which it keeps for
// going back, and tabs behind others would hold them all, and the next page never comes.
function follow() {
  if (document.hidden) {
    stream?.close();
    stream = null;
  } else if (stream === null) {
    stream = new EventSource("/console/live");
    stream.addEventListener("open", () => { say("Live"); });
    stream.addEventListener("changed", refresh);
    stream.addEventListener("error", (event) => {
      const isOver = event.target.readyState === EventSource.CLOSED;
      say(isOver ? "Not live: reload the page" : "Not live: connecting");
    });
  }
}

if (document.querySelector("[data-live]") !== null) {
  follow();
  document.addEventListener("visibilitychange", () => {
    follow();
    refresh();
  });
}
