// What pages can do beyond HTML. Nothing here is needed: without it, times are
// in UTC, buttons do what they say, and a reload shows what is new.
"use strict";

(() => {
  // On a phone the rooms of the house stand in a row that is wider than the screen.
  const here = document.querySelector("nav [aria-current]"), row = here?.parentElement;
  if (row) row.scrollLeft = here.offsetLeft - (row.clientWidth - here.offsetWidth) / 2;

  // Times: in the reader's zone, and still true in a minute.

  const minute = { day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit", timeZoneName: "short" };
  const formats = {
    moment: new Intl.DateTimeFormat(undefined, minute),
    exact: new Intl.DateTimeFormat(undefined, { ...minute, second: "2-digit" }),
  };

  const plural = (n, word) => `${n} ${word}${n === 1 ? "" : "s"}`;

  // The same words as web/functions.go says.
  const relative = (at) => {
    const ms = at - Date.now(), abs = Math.abs(ms), minutes = abs / 60000;
    if (abs < 45000) return ms > 0 ? "in a moment" : "just now";
    const far = minutes < 90 ? plural(Math.max(1, Math.round(minutes)), "minute")
      : minutes < 36 * 60 ? plural(Math.round(minutes / 60), "hour")
      : plural(Math.round(minutes / 1440), "day");
    return ms > 0 ? `in ${far}` : `${far} ago`;
  };

  const set = (element, text) => { if (element.textContent !== text) element.textContent = text; };

  const tick = () => {
    for (const t of document.querySelectorAll("time[data-show=ago]")) set(t, relative(new Date(t.dateTime)));
    for (const w of document.querySelectorAll(".soon[data-ends]")) w.hidden = Number(w.dataset.ends) - Date.now() / 1000 > 300;
    for (const p of document.querySelectorAll("progress[data-start]")) {
      if (p.dataset.start) p.value = Math.min(p.max, Math.max(0, Date.now() / 1000 - Number(p.dataset.start)));
    }
  };

  // dress makes what came from the server ready, at first and after each change.
  const dress = (root) => {
    for (const t of root.querySelectorAll("time[datetime]")) {
      const at = new Date(t.dateTime);
      const format = formats[t.dataset.show];
      t.title = format ? t.dateTime : formats.exact.format(at);
      if (format) set(t, format.format(at));
    }
    for (const b of root.querySelectorAll("[data-copy], [data-scripted-only]")) b.hidden = false;
    for (const b of root.querySelectorAll("[data-unscripted], [data-scripted='']")) b.hidden = true;
    tick();
  };

  document.addEventListener("click", async (e) => {
    const button = e.target.closest("[data-copy]");
    if (!button) return;
    const label = button.querySelector("span");
    try {
      await navigator.clipboard.writeText(button.dataset.copy);
      label.textContent = "Copied";
    } catch {
      // No clipboard without https: select it, so that one key copies it.
      getSelection().selectAllChildren(button.parentElement.querySelector("code"));
      label.textContent = "Selected";
    }
    setTimeout(() => { label.textContent = "Copy"; }, 2000);
  });

  // A second click must not post twice.
  document.addEventListener("submit", (e) => {
    if (e.target.method !== "post") return;
    if (e.target.dataset.sent) { e.preventDefault(); return; }
    e.target.dataset.sent = "yes";
  });
  addEventListener("pageshow", () => {
    for (const f of document.querySelectorAll("form[data-sent]")) delete f.dataset.sent;
  });

  for (const s of document.querySelectorAll("select[data-submit]")) s.addEventListener("change", () => s.form.requestSubmit());

  // Pages that follow what happens.

  const pause = (ms) => new Promise((done) => setTimeout(done, ms));

  const visible = () => document.visibilityState === "visible" ? Promise.resolve()
    : new Promise((done) => document.addEventListener("visibilitychange", done, { once: true }));

  // replace puts new contents into live, and keeps what is being written there.
  const replace = (live, nodes, version) => {
    const kept = new Map();
    for (const f of live.querySelectorAll("textarea[id], select[id]")) kept.set(f.id, f.value);
    const open = new Map([...live.querySelectorAll("details")].map((d, i) => [d.id || i, d.open]));
    const focus = live.contains(document.activeElement) ? document.activeElement.id : "";
    live.replaceChildren(...nodes);
    live.dataset.version = version;
    for (const [id, value] of kept) {
      const f = document.getElementById(id);
      if (f && value) f.value = value;
    }
    live.querySelectorAll("details").forEach((d, i) => { d.open = open.get(d.id || i) ?? d.open; });
    if (focus) document.getElementById(focus)?.focus();
    dress(live);
  };

  const follow = async (live) => {
    const { changes, refresh } = live.dataset;
    for (let wrong = 0; wrong < 5;) {
      await visible();
      if (refresh) await pause(refresh * 1000);
      try {
        const address = changes ? `${changes}?since=${encodeURIComponent(live.dataset.version)}` : location.href;
        const answer = await fetch(address, { redirect: "error", headers: { Accept: "text/html" } });
        if (!answer.ok) throw new Error(answer.statusText);
        wrong = 0;
        if (answer.status === 204) continue;
        const page = new DOMParser().parseFromString(await answer.text(), "text/html");
        const fresh = changes ? page.body : page.getElementById("live");
        const version = (changes ? page.querySelector("[data-version]") : fresh).dataset.version;
        if (version !== live.dataset.version) replace(live, [...fresh.childNodes], version);
      } catch {
        wrong++; // signed out, or the broker is restarting: a reload says which
        await pause(wrong * 5000);
      }
    }
  };

  // Times that an address filled in are in UTC; here they are on the reader's clock.
  const onMyClock = (zone) => {
    const local = Intl.DateTimeFormat().resolvedOptions().timeZone, two = (n) => String(n).padStart(2, "0");
    if (zone.value !== "UTC" || !local || local === "UTC") return;
    for (const day of zone.form.querySelectorAll("input[type=date]")) {
      const hour = zone.form.querySelector(`#${day.id.replace("_date", "_time")}`);
      const at = new Date(`${day.value}T${hour.value}Z`);
      if (isNaN(at)) continue;
      day.value = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
      hour.value = `${two(at.getHours())}:${two(at.getMinutes())}`;
    }
    zone.value = local;
  };

  // A timeline's days are those of the reader's clock, unless the address names another.
  const ownClock = () => {
    const local = Intl.DateTimeFormat().resolvedOptions().timeZone, address = new URL(location.href);
    if (!local || local === "UTC" || address.searchParams.has("zone")) return;
    address.searchParams.set("zone", local);
    location.replace(address);
  };

  // The form for a new request: shows what would happen while it is filled in.

  const ask = (form) => {
    const chosen = () => form.querySelector("input[name=target]:checked");

    const adapt = () => {
      const target = chosen();
      if (!target) return;
      const emergency = form.querySelector("#emergency");
      if (target.value === "several") { // which rule that is, the preview says
        if (emergency) emergency.hidden = false;
        set(form.querySelector("[data-usual]"), "As usual");
        set(form.querySelector("[data-longest]"), "");
        for (const chip of form.querySelectorAll("[data-seconds]")) chip.disabled = chip.parentElement.hidden = false;
        for (const note of form.querySelectorAll("[data-needs]")) set(note, "");
        return;
      }
      const offered = "emergencyMax" in target.dataset;
      if (emergency) {
        if (!offered) emergency.querySelector("input[value='']").checked = true;
        emergency.hidden = !offered;
      }
      const now = emergency && !emergency.querySelector("input[value='']").checked;
      const max = now ? target.dataset.emergencyMax : target.dataset.max;
      const maxtext = now ? target.dataset.emergencyMaxtext : target.dataset.maxtext;
      const usually = now ? target.dataset.emergencyDefault : target.dataset.default;
      const usual = form.querySelector("input[name=duration][value='']");
      set(form.querySelector("[data-usual]"), usually);
      set(form.querySelector("[data-longest]"), ` At most ${maxtext}.`);
      for (const chip of form.querySelectorAll("[data-seconds]")) {
        chip.disabled = Number(chip.dataset.seconds) > Number(max);
        chip.parentElement.hidden = chip.nextElementSibling.textContent === usually; // usual says it
        if (chip.checked && (chip.disabled || chip.parentElement.hidden)) { usual.checked = true; look(); }
      }
      for (const note of form.querySelectorAll("[data-needs]")) {
        set(note, target.dataset[note.dataset.needs] === "true" ? "" : "(optional)");
      }
    };

    let waiting, running;
    const look = async () => {
      if (!chosen()) return;
      running?.abort();
      running = new AbortController();
      try {
        const answer = await fetch(form.dataset.preview, {
          method: "POST", body: new URLSearchParams(new FormData(form)), signal: running.signal, redirect: "error",
        });
        if (!answer.ok) return;
        const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").body;
        const preview = document.getElementById("preview");
        preview.replaceChildren(...fresh.childNodes);
        dress(preview);
      } catch { /* superseded, or offline: sending will tell */ }
    };

    const narrow = form.querySelector("[data-narrow]"), list = document.getElementById("targets");
    const sift = () => {
      const words = narrow.value.toLowerCase().split(/\s+/);
      let shown = 0;
      for (const choice of list.querySelectorAll(".choice")) {
        choice.hidden = !words.every((w) => choice.dataset.text.toLowerCase().includes(w));
        if (!choice.hidden) shown++;
      }
      const none = list.querySelector("[data-none]");
      none.hidden = shown > 0 || !list.querySelector(".choice");
    };

    form.addEventListener("input", (e) => {
      if (e.target === narrow) { sift(); return; }
      if (e.target.id === "other" && e.target.value) form.querySelector("input[value=other]").checked = true;
      if (e.target.matches("#login, #selector") && e.target.value) {
        form.querySelector("input[name=target][value=several]").checked = true;
        adapt();
      }
      clearTimeout(waiting);
      waiting = setTimeout(look, e.target.type === "radio" ? 0 : 350);
      if (e.target.name === "target" || e.target.name === "emergency") adapt();
    });
    form.addEventListener("change", (e) => {
      if (e.target.value === "other" && e.target.name === "duration") form.querySelector("#other").focus();
    });
    // Return in a field would press the form's first button, which is another one.
    form.addEventListener("keydown", (e) => { if (e.key === "Enter" && e.target.matches("input")) e.preventDefault(); });
    adapt();
    chosen()?.closest(".choice").scrollIntoView({ block: "nearest" });
  };

  dress(document);
  setInterval(tick, 5000);
  const live = document.getElementById("live");
  if (live?.dataset.changes || live?.dataset.refresh) follow(live);
  for (const zone of document.querySelectorAll("[data-zone]")) onMyClock(zone);
  if (document.querySelector("[data-own-clock]")) ownClock();
  const form = document.getElementById("ask");
  if (form) ask(form);
})();
