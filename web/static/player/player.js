// Plays a recording to an auditor, with their own key, which stays here: it is used to
// decrypt, and then forgotten. xterm.js keeps the screen of a terminal, without showing
// it; what it shows is drawn here, as text in boxes. So nothing that a recording says
// becomes markup, a link, a title or something to copy, and the page needs no inline style.
"use strict";

(() => {
  const root = document.getElementById("player");
  if (!root) return;
  const $ = (id) => document.getElementById(id);
  const steps = (name) => { for (const s of root.querySelectorAll("[data-step]")) s.hidden = s.dataset.step !== name; };

  const say = (text, bad = false) => {
    const status = $("player-status");
    status.classList.toggle("bad", bad);
    if (status.textContent !== text) status.textContent = text;
  };
  const percent = (what) => (part) => say(`${what} ${Math.floor(part * 100)} %`);

  // Colours by their number, as xterm has them.
  const colours = ("2b303b e06c75 98c379 e5c07b 61afef c678dd 56b6c2 c8ccd4 " +
    "7b8494 ff8b92 b5e090 ffd68a 82c4ff df9bf5 7ad7e3 ffffff").split(" ").map((c) => "#" + c);
  const level = (n) => n === 0 ? 0 : 55 + 40 * n;
  for (let n = 0; n < 216; n++) colours.push(`rgb(${level(Math.floor(n / 36))} ${level(Math.floor(n / 6) % 6)} ${level(n % 6)})`);
  for (let n = 0; n < 24; n++) colours.push(`rgb(${8 + 10 * n} ${8 + 10 * n} ${8 + 10 * n})`);
  const rgb = (n) => `rgb(${n >> 16 & 255} ${n >> 8 & 255} ${n & 255})`;
  const front = "#e9edf5", back = "#14181f";

  const within = (n, least, most, otherwise) => Number.isInteger(n) && n > 0 ? Math.min(Math.max(n, least), most) : otherwise;

  // Screen is a terminal that nobody types into, and that answers nothing.
  class Screen {
    #term;
    #at = $("screen");
    #rows = []; // elements, and what each shows
    #larger = false;
    cursor = true;

    constructor(columns, rows, newlines) {
      this.begin = { cols: within(columns, 2, 500, 100), rows: within(rows, 1, 200, 30) };
      this.newlines = newlines;
      this.reset();
      new ResizeObserver(() => this.fit()).observe(this.#at.parentElement);
    }

    // reset is what there was before the first event.
    reset() {
      this.#term?.dispose();
      this.#term = new xterm.Terminal({ ...this.begin, scrollback: 0, convertEol: this.newlines, allowProposedApi: true, logLevel: "off" });
      this.cursor = true;
      this.#layOut();
    }

    resize(size) {
      const [, columns, rows] = /^(\d{1,5})x(\d{1,5})$/.exec(size) ?? [];
      if (!columns) return;
      this.#term.resize(within(Number(columns), 2, 500, 80), within(Number(rows), 1, 200, 24));
      this.#layOut();
    }

    write(text) { return new Promise((done) => this.#term.write(text, done)); }

    #layOut() {
      const { cols, rows } = this.#term;
      this.#rows = Array.from({ length: rows }, () => ({ element: document.createElement("div"), shows: undefined }));
      this.#at.replaceChildren(...this.#rows.map((r) => r.element));
      this.#at.style.width = cols + "ch";
      this.fit();
    }

    larger(yes) {
      this.#larger = yes;
      this.fit();
    }

    // fit chooses the size of letters, so that all columns are seen.
    fit() {
      const view = this.#at.parentElement, style = getComputedStyle(view);
      const room = view.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
      if (room <= 0) return;
      const letter = this.#letter ??= this.#measure();
      this.#at.style.fontSize = `${this.#larger ? 14 : Math.min(15, Math.max(4, Math.floor(room / this.#term.cols / letter * 20) / 20))}px`;
    }
    #letter;

    // measure is how wide a letter is, of those that are one pixel high.
    #measure() {
      const probe = document.createElement("span");
      probe.textContent = "0".repeat(100);
      this.#at.style.fontSize = "50px";
      this.#at.append(probe);
      const width = probe.getBoundingClientRect().width;
      probe.remove();
      return width / 100 / 50;
    }

    draw() {
      const buffer = this.#term.buffer.active, cell = buffer.getNullCell();
      for (const [y, row] of this.#rows.entries()) {
        const line = buffer.getLine(buffer.baseY + y), runs = [];
        for (let x = 0; line && x < this.#term.cols; x++) {
          line.getCell(x, cell);
          if (cell.getWidth() === 0) continue; // the right half of a wide one
          const style = this.#style(cell, this.cursor && y === buffer.cursorY && x === Math.min(buffer.cursorX, this.#term.cols - 1));
          const text = (cell.isInvisible() ? "" : [...cell.getChars()].slice(0, 8).join("")) || " ";
          const odd = !/^[ -~]$/.test(text), wide = cell.getWidth() === 2;
          const last = runs.at(-1);
          if (!odd && last && !last.odd && last.style === style) last.text += text;
          else runs.push({ text, style, odd, wide });
        }
        const end = runs.at(-1);
        if (end && !end.odd && end.style === "||") end.text = end.text.trimEnd() || (runs.length === 1 ? " " : "");
        const shows = JSON.stringify(runs);
        if (shows === row.shows) continue;
        row.shows = shows;
        row.element.replaceChildren(...runs.map(span));
      }
    }

    // style is how a cell looks: names, a colour and another.
    #style(cell, cursor) {
      const pick = (isRGB, isPalette, n) => isRGB ? rgb(n) : isPalette ? colours[n] ?? "" : "";
      let fore = pick(cell.isFgRGB(), cell.isFgPalette(), cell.getFgColor()), behind = pick(cell.isBgRGB(), cell.isBgPalette(), cell.getBgColor());
      if (cell.isInverse()) [fore, behind] = [behind || back, fore || front];
      const names = [cell.isBold() && "bold", cell.isDim() && "faint", cell.isItalic() && "italic", cell.isUnderline() && "under", cell.isStrikethrough() && "struck", cursor && "cursor"];
      if (cursor) fore = behind = "";
      return `${names.filter(Boolean).join(" ")}|${fore}|${behind}`;
    }

    end() {
      this.#term.dispose();
      this.#at.replaceChildren();
    }
  }

  const span = ({ text, style, odd, wide }) => {
    const [names, fore, behind] = style.split("|");
    if (!odd && style === "||") return document.createTextNode(text);
    const s = document.createElement("span");
    s.className = [names, odd && "odd", wide && "wide"].filter(Boolean).join(" ");
    s.style.color = fore;
    s.style.backgroundColor = behind;
    s.textContent = text;
    return s;
  };

  // shown is what is seen of an event, as `sally audit replay` has it.
  const shown = (filter, e, terminal) => {
    switch (e.code) {
      case "o": return filter.next(e.data);
      case "i": return terminal ? "" : filter.next(e.data);
      case "ob": case "ib":
        return `\r\n[${e.code === "ib" ? "read" : "wrote"} ${Math.floor(e.data.length / 4) * 3 - (/=*$/.exec(e.data)[0].length)} bytes that are no text]\r\n`;
    }
    return "";
  };

  // What happened, with the time of each as it was and with pauses made short.
  const idleAfter = 2;

  const prepared = async ({ header, events }) => {
    const terminal = header.sallyport?.terminal === true, filter = new Filter(), happened = [];
    if (typeof header.command === "string" && header.command) {
      happened.push({ text: `$ ${new Filter().next(header.command.replaceAll("\n", "\r\n"))}\r\n`, cursor: true, real: 0, short: 0 });
    }
    let real = 0, short = 0, breath = performance.now();
    for (const e of events) {
      const gap = Math.max(0, e.at - real);
      real += gap;
      short += Math.min(gap, idleAfter);
      const text = shown(filter, e, terminal), size = e.code === "r" ? e.data : "";
      if (text || size) happened.push({ text, size, cursor: filter.cursor, real, short });
      if (performance.now() - breath > 40) {
        await Recording.pause();
        breath = performance.now();
      }
    }
    return { happened, real, short, screen: new Screen(header.width, header.height, !terminal) };
  };

  class Player {
    #happened; #lengths; #screen;
    #next = 0; // which event comes
    #position = 0; // seconds
    #playing = false;
    #wanted = null; // where to go, while something is being written
    #busy = false;
    #drawn = -1; // up to which event

    constructor({ happened, real, short, screen }) {
      this.#happened = happened;
      this.#lengths = { real, short };
      this.#screen = screen;
    }

    get #clock() { return $("idle").checked ? "short" : "real"; }
    get #length() { return this.#lengths[this.#clock]; }

    play(yes = !this.#playing) {
      if (yes && this.#position >= this.#length) this.seek(0);
      this.#playing = yes;
      $("toggle").setAttribute("aria-label", yes ? "Pause" : "Play");
      for (const icon of $("toggle").children) icon.hidden = icon.dataset.icon === (yes ? "play" : "pause");
      if (!yes) return;
      let last = performance.now();
      const step = async (now) => {
        if (!this.#playing) return;
        // Where nobody looked, no time has passed.
        const passed = Math.min(Math.max(0, now - last), 1000) / 1000 * Number($("speed").value);
        last = now;
        await this.seek(this.#position + passed);
        if (this.#position >= this.#length) this.play(false);
        else requestAnimationFrame(step);
      };
      requestAnimationFrame(step);
    }

    by(seconds) { return this.seek(this.#position + seconds); }

    // clockChanged keeps the event where it is, and tells time otherwise.
    clockChanged() { return this.seek(this.#next > 0 ? this.#happened[this.#next - 1][this.#clock] : 0); }

    // seek shows what the terminal showed then.
    async seek(to) {
      this.#position = Math.min(Math.max(0, to), this.#length);
      if (this.#busy) {
        this.#wanted = this.#position;
        return;
      }
      this.#busy = true;
      try {
        do {
          this.#wanted = null;
          await this.#writeUntil(this.#position);
        } while (this.#wanted !== null);
      } finally {
        this.#busy = false;
      }
      if (this.#drawn !== this.#next) this.#screen.draw();
      this.#drawn = this.#next;
      this.#show();
    }

    async #writeUntil(position) {
      const clock = this.#clock;
      if (this.#next > 0 && this.#happened[this.#next - 1][clock] > position) {
        this.#screen.reset();
        this.#next = 0;
      }
      let text = "", breath = performance.now();
      while (this.#wanted === null && this.#next < this.#happened.length && this.#happened[this.#next][clock] <= position) {
        const e = this.#happened[this.#next++];
        if (e.size) {
          await this.#screen.write(text);
          text = "";
          this.#screen.resize(e.size);
        }
        text += e.text;
        this.#screen.cursor = e.cursor;
        if (text.length < 1 << 12) continue;
        await this.#screen.write(text);
        text = "";
        if (performance.now() - breath > 40) {
          await Recording.pause();
          breath = performance.now();
        }
      }
      await this.#screen.write(text);
    }

    #show() {
      const time = (s) => [...(s >= 3600 ? [Math.floor(s / 3600)] : []), String(Math.floor(s / 60) % 60).padStart(s >= 3600 ? 2 : 1, "0"), String(Math.floor(s) % 60).padStart(2, "0")].join(":");
      const seek = $("seek");
      seek.max = this.#length;
      seek.value = this.#position;
      const text = `${time(this.#position)} / ${time(this.#length)}`;
      if ($("clock").textContent !== text) {
        $("clock").textContent = text;
        seek.setAttribute("aria-valuetext", text);
      }
    }

    larger(yes) { this.#screen.larger(yes); }

    end() {
      this.#playing = false;
      this.#happened = [];
      this.#screen.end();
    }
  }

  let player, bytes, working = false;

  // use plays the recording with the keys in the text.
  const use = async (text) => {
    if (working) return;
    working = true;
    try {
      const consent = $("unproved");
      if (consent && !consent.checked) throw new Recording.Fault("Nothing proves what this is. Say that you want it played all the same, above.");
      const keys = Recording.identities(text);
      const { source, max, digest } = root.dataset;
      if (!bytes) {
        const came = await Recording.fetched(source, Number(max), percent("Fetching it …"));
        if (digest) {
          const sum = await Recording.digest(came);
          if (sum !== digest) throw new Recording.Fault(`What came is not what the log says: its SHA-256 is ${sum}. Nothing is played.`);
        }
        bytes = came;
      }
      const said = await Recording.read(bytes, keys, percent("Decrypting it …"));
      bytes = undefined;
      const ready = await prepared(said);
      const proof = digest ? "Its SHA-256 is that in the log." : "Nothing proves what this is.";
      say(said.cut ? `${proof} Its end is missing.` : proof);
      steps("play");
      player = new Player(ready);
      await player.seek(0);
      player.play(true);
      $("toggle").focus();
    } catch (e) {
      say(e instanceof Recording.Fault ? e.message : "It could not be played: the connection broke, or the page has a fault. Try again.", true);
      if (!(e instanceof Recording.Fault)) console.error(e);
    } finally {
      working = false;
    }
  };

  $("key-file").addEventListener("change", async (e) => {
    const file = e.target.files[0];
    if (!file) return;
    const text = file.size > 1 << 16 ? "" : await file.text();
    e.target.value = "";
    await use(text);
  });
  $("key-use").addEventListener("click", async () => {
    const text = $("key-text").value;
    $("key-text").value = "";
    await use(text);
  });

  $("toggle").addEventListener("click", () => player.play());
  $("seek").addEventListener("input", (e) => player.seek(Number(e.target.value)));
  $("idle").addEventListener("change", () => player.clockChanged());
  $("larger").addEventListener("click", (e) => {
    const yes = e.target.getAttribute("aria-pressed") !== "true";
    e.target.setAttribute("aria-pressed", yes);
    player.larger(yes);
  });
  addEventListener("keydown", (e) => {
    if (!player || e.ctrlKey || e.altKey || e.metaKey) return;
    const own = e.target.closest?.("button, select, textarea, summary, a, input:not([type=range])");
    if (e.key === " " && !own) player.play();
    else if ((e.key === "ArrowLeft" || e.key === "ArrowRight") && !e.target.closest?.("select, textarea")) {
      const view = e.target.closest?.(".view");
      if (view && view.scrollWidth > view.clientWidth) return; // they scroll
      player.by(e.key === "ArrowLeft" ? -5 : 5);
    } else return;
    e.preventDefault();
  });

  // Nothing stays behind where a browser keeps pages that one comes back to.
  addEventListener("pagehide", () => {
    player?.end();
    bytes = undefined;
    $("key-text").value = "";
  });
  addEventListener("pageshow", (e) => { if (e.persisted) location.reload(); });

  steps("key");
})();
