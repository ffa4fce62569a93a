// Enhancements of the pages: live updates, times in the reader's zone, and a preview while a message is written. Every page
// works without this script, and nothing is decided here.
"use strict";

document.documentElement.classList.add("scripted");

// The server renders times in UTC. They are changed to the reader's zone.
const shown = new Intl.DateTimeFormat(undefined, {
  day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit", timeZoneName: "short",
});
const today = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });

function showTimes(root, withDates = false) {
  for (const time of root.querySelectorAll("time[datetime]")) {
    const at = new Date(time.dateTime);
    if (Number.isNaN(at.getTime())) continue;
    if (time.dataset.zone) {
      // A time in a campaign's zone stays, followed by the reader's time if it differs.
      const parts = { year: "numeric", month: "numeric", day: "numeric", hour: "numeric", minute: "numeric" };
      const there = new Intl.DateTimeFormat("en", { ...parts, timeZone: time.dataset.zone }).format(at);
      const here = new Intl.DateTimeFormat("en", parts).format(at);
      if (there !== here && !time.title) time.textContent += ` (your time: ${shown.format(at)})`;
      time.title = shown.format(at);
      continue;
    }
    const isToday = at.toDateString() === new Date().toDateString();
    time.title = shown.format(at);
    time.textContent = isToday && !withDates ? today.format(at) : shown.format(at);
  }
}

// Printed pages need the date with each time.
window.addEventListener("beforeprint", () => showTimes(document, true));
window.addEventListener("afterprint", () => showTimes(document));

// The server renders the times of a plot in the campaign's zone. They are changed to the reader's, like all others.
const precisions = {
  day: { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" },
  minute: { hour: "2-digit", minute: "2-digit" },
  second: { hour: "2-digit", minute: "2-digit", second: "2-digit" },
};

function showPlotTimes(root) {
  for (const text of root.querySelectorAll("text[data-time]")) {
    text.textContent = new Intl.DateTimeFormat(undefined, { ...precisions[text.dataset.precision], hour12: false }).format(new Date(text.dataset.time));
  }
  for (const note of root.querySelectorAll("[data-zone-of-plot]")) {
    const [own, here] = [note.dataset.zoneOfPlot, Intl.DateTimeFormat().resolvedOptions().timeZone];
    note.textContent = own === here || own === "UTC" ? `Times in ${here}.` : `Times in your time zone (${here}); the campaign’s is ${own}.`;
  }
}

// A workbook has its times in the reader's zone if the campaign has no sending hours.
function addZone(root) {
  for (const link of root.querySelectorAll("a[href*='/results.xlsx']")) {
    const query = new URLSearchParams(link.search);
    query.set("zone", Intl.DateTimeFormat().resolvedOptions().timeZone);
    link.search = query;
  }
}

const places = document.querySelector("[data-live]");
const connection = document.getElementById("connection");
let source = null;
let lostSince = null;

function say(text) {
  connection.hidden = text === "";
  connection.textContent = text;
}

// An element under the pointer, or with selected text, is updated later.
const POINTS_FOR = 3000;
const waits = new Map();
let pointed = 0;
document.addEventListener("pointermove", () => { pointed = Date.now(); }, { passive: true });

function isRead(place) {
  const marked = document.getSelection();
  if (marked && !marked.isCollapsed && marked.rangeCount > 0 && marked.getRangeAt(0).intersectsNode(place)) return true;
  return place.matches(":hover") && Date.now() - pointed < POINTS_FOR;
}

window.setInterval(() => {
  for (const part of [...waits.values()]) put(part);
}, 500);

function put(part) {
  const { id, html } = part;
  const place = document.getElementById(id);
  waits.delete(id);
  if (!place || place.dataset.html === html) return;
  if (isRead(place)) {
    waits.set(id, part);
    return;
  }
  // Focus and opened details survive the update.
  const focused = place.contains(document.activeElement) ? document.activeElement : null;
  const way = focused && (focused.getAttribute("href") || focused.closest("form")?.getAttribute("action"));
  const open = [...place.querySelectorAll("details")].map((details) => details.open);
  place.innerHTML = html;
  place.dataset.html = html;
  place.querySelectorAll("details").forEach((details, nth) => { details.open = open[nth] ?? details.open; });
  if (way) {
    const same = [...place.querySelectorAll("a, form")].find((element) =>
      element.getAttribute("href") === way || element.getAttribute("action") === way);
    (same?.querySelector("button") ?? same)?.focus();
  }
  showTimes(place);
  showPlotTimes(place);
  addZone(place);
}

// A part that has no live updates of its own is read again with the page.
const REFRESH = 3000;
let refreshes = 200;
const refreshed = document.querySelector("[data-refresh]");
if (refreshed) {
  const timer = window.setInterval(async () => {
    if (document.hidden) return;
    refreshes -= 1;
    if (refreshes <= 0) window.clearInterval(timer);
    const answer = await fetch(location.href).catch(() => null);
    if (!answer?.ok) return;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const html = page.getElementById(refreshed.id)?.innerHTML;
    if (html) put({ id: refreshed.id, html });
  }, REFRESH);
}

function follow() {
  if (!places || "still" in places.dataset || source || document.hidden) return;
  source = new EventSource(places.dataset.live);
  source.addEventListener("open", () => { lostSince = null; say(""); });
  source.addEventListener("part", (event) => { lostSince = null; say(""); put(JSON.parse(event.data)); });
  source.addEventListener("error", () => {
    lostSince ??= new Date();
    // The stream also ends when the campaign ends: only a lasting interruption is reported.
    window.setTimeout(() => {
      if (lostSince) say(`No connection since ${today.format(lostSince)}. What you see is from then; trying again.`);
    }, 3000);
    if (source && source.readyState === EventSource.CLOSED) {
      source = null;
      window.setTimeout(follow, 5000);
    }
  });
}

// A hidden page has no connection.
document.addEventListener("visibilitychange", () => {
  if (document.hidden && source) {
    source.close();
    source = null;
    lostSince = null;
  } else {
    follow();
  }
});

// A select that changes the form submits it at once if it was changed with a pointer. Keyboard users pass through the options, so
// they submit it with a button.
let isByPointer = false;
document.addEventListener("pointerdown", () => { isByPointer = true; }, true);
document.addEventListener("keydown", () => { isByPointer = false; }, true);
document.addEventListener("change", (event) => {
  const field = event.target;
  if (field.dataset.click && isByPointer) document.getElementById(field.dataset.click)?.click();
  // The theme changes without a reload, so that typed text is kept.
  if (field.id === "theme") {
    if (field.value) document.documentElement.dataset.theme = field.value;
    else delete document.documentElement.dataset.theme;
    fetch(field.form.action, { method: "POST", body: new URLSearchParams(new FormData(field.form)), redirect: "manual" }).catch(() => null);
  }
});

// A placeholder is inserted at the cursor.
let lastField = null;
document.addEventListener("focusin", (event) => {
  if (event.target.matches("#message-form [name^='/message'], #message-form textarea")) lastField = event.target;
});
document.addEventListener("click", (event) => {
  const chip = event.target.closest("[data-insert]");
  if (!chip) return;
  const field = lastField ?? document.querySelector("#message-form textarea");
  if (!field) return;
  const [start, end] = lastField ? [field.selectionStart, field.selectionEnd] : [field.value.length, field.value.length];
  field.setRangeText(chip.dataset.insert, start, end, "end");
  field.focus();
  field.dispatchEvent(new Event("input", { bubbles: true }));
});

// Leaving a step saves what was typed in it.
const typed = document.querySelector("form[data-step]");
for (const step of typed ? document.querySelectorAll(".steps a") : []) {
  step.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    const to = Object.assign(document.createElement("input"), { type: "hidden", name: "do", value: `go:${step.dataset.step}` });
    typed.append(to);
    typed.submit();
  });
}

// The preview of a message is updated while it is written.
const form = document.querySelector("form[data-preview]");
if (form) {
  let waiting = 0;
  let asked = 0;
  form.addEventListener("input", () => {
    window.clearTimeout(waiting);
    waiting = window.setTimeout(async () => {
      asked += 1;
      const mine = asked;
      const answer = await fetch(form.dataset.preview, { method: "POST", body: new URLSearchParams(new FormData(form)) })
        .catch(() => null);
      // If the preview fails, the last one stays.
      if (answer?.ok && mine === asked) document.getElementById("phones").innerHTML = await answer.text();
    }, 400);
  });
}

showTimes(document);
showPlotTimes(document);
addZone(document);
document.getElementById("summary")?.focus();
follow();
