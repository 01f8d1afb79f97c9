// What of a recording is drawn. It was written by whoever is audited: so nothing gets
// through but text, and those control sequences that move, erase, scroll and paint. The
// same rules as cmd/sally/internal/replay has, which explains them, and one more: no
// number is larger than a screen, so that nothing keeps the page busy.
"use strict";

const Filter = (() => {
  const most = 64; // characters of a sequence
  const largest = (final) => "LMST".includes(final) ? 200 : "IZ".includes(final) ? 64 : 500; // see above
  const modes = new Set(["5", "6", "7", "12", "25", "47", "1047", "1048", "1049", "2026"]);
  const finals = new Set("@ABCDEFGHIJKLMPSTXZ`abdefmr");

  // sequence is a control sequence as it may be drawn, or nothing.
  const sequence = (parameters, final) => {
    if (parameters.startsWith("?")) {
      const which = parameters.slice(1);
      const draws = final === "h" || final === "l" ? which.split(";").every((m) => modes.has(m))
        : (final === "J" || final === "K") && /^[0-9;:]*$/.test(which);
      return draws ? `\x1b[${parameters}${final}` : "";
    }
    if (!/^[0-9;:]*$/.test(parameters)) return "";
    if (!(finals.has(final) || (final === "h" || final === "l") && parameters === "4" || (final === "s" || final === "u") && parameters === "")) return "";
    return `\x1b[${parameters.replace(/\d+/g, (n) => Math.min(Number(n), largest(final)))}${final}`;
  };

  return class Filter {
    #state = "text";
    #pending = "";
    cursor = true; // whether the cursor is shown, after what came

    // next is what of a piece may be drawn. Sequences may come in pieces.
    next(piece) {
      let out = "";
      for (const c of piece) out += this.#one(c, c.codePointAt(0));
      return out;
    }

    #begin(state) {
      this.#state = state;
      this.#pending = "";
      return "";
    }

    #one(c, code) {
      switch (this.#state) {
        case "text":
          if (code === 0x1b) return this.#begin("escape");
          if (c === "\n" || c === "\r" || c === "\t" || c === "\b") return c;
          if (code < 0x20 || code >= 0x7f && code < 0xa0 || code >= 0xd800 && code < 0xe000 || code === 0xfffd) {
            return code === 0x90 || code === 0x98 || code >= 0x9d && code <= 0x9f ? this.#begin("string") : "";
          }
          return c;
        case "escape":
          if (c === "[") return this.#begin("control");
          if ("]P_^X".includes(c)) return this.#begin("string");
          if (code >= 0x20 && code <= 0x2f) {
            this.#begin("charset");
            this.#pending = c === "(" || c === ")" ? c : "";
            return "";
          }
          this.#begin(code === 0x1b ? "escape" : "text");
          return "78DEM".includes(c) ? "\x1b" + c : "";
        case "charset": {
          const set = this.#pending;
          this.#begin("text");
          return set && "0AB".includes(c) ? "\x1b" + set + c : "";
        }
        case "control": {
          if (code === 0x1b) return this.#begin("escape");
          if (code >= 0x20 && code <= 0x3f) {
            if (this.#pending.length < most) this.#pending += c;
            return "";
          }
          const parameters = this.#pending;
          this.#begin("text");
          if (code < 0x40 || code > 0x7e || parameters.length >= most) return "";
          const drawn = sequence(parameters, c);
          if (drawn && parameters.startsWith("?") && parameters.slice(1).split(";").includes("25")) this.cursor = c === "h";
          return drawn;
        }
        case "string":
          if (code === 0x1b) this.#state = "ending";
          else if (code === 0x07 || code === 0x9c || code === 0x18 || code === 0x1a) this.#state = "text";
          return "";
        default: // after ESC in a string
          this.#state = c === "\\" ? "text" : "string";
          return "";
      }
    }
  };
})();
