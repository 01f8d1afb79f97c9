// The form of a recording, as package audit/recording has it: a first line, then parts,
// each of which is four bytes of length and one age file. What the parts say, joined, is
// an asciicast of version 2.
"use strict";

const Recording = (() => {
  const magic = "sallyport.recording/1\n", maxPart = 256 << 10, maxPlain = 128 << 10, longest = 30 * 24 * 3600;

  // Fault is what a person is told, as it stands.
  class Fault extends Error {}

  // identities are the private keys in what age-keygen writes. What is none is not repeated.
  const identities = (text) => {
    const keys = text.split("\n").map((line) => line.trim()).filter((line) => line && !line.startsWith("#"));
    if (/^(age-encryption\.org\/v1|-----BEGIN AGE ENCRYPTED FILE-----)/.test(text.trim())) {
      throw new Fault("This identity file is encrypted itself. Decrypt it first: age --decrypt.");
    }
    if (keys.length === 0) throw new Fault("There is no identity in it.");
    if (keys.length > 64) throw new Fault("There are too many identities in it.");
    if (keys.every((key) => /^age1/i.test(key))) throw new Fault("This is a public key. The private one is needed: AGE-SECRET-KEY-…");
    if (!keys.every((key) => /^AGE-SECRET-KEY-(1|PQ-1)[0-9A-Z]+$/i.test(key))) {
      throw new Fault("This is no identity of age, as age-keygen makes them: AGE-SECRET-KEY-…");
    }
    return keys;
  };

  // pause lets the page breathe.
  const pause = () => new Promise((done) => setTimeout(done));

  // fetched is the recording as it is encrypted. That it was fetched is in the log.
  const fetched = async (source, max, progress) => {
    const answer = await fetch(source, { cache: "no-store", redirect: "error" });
    if (!answer.ok) {
      const problem = await answer.json().catch(() => ({}));
      throw new Fault(`It could not be fetched: ${problem.detail || problem.title || answer.status}.`);
    }
    const all = Number(answer.headers.get("Content-Length")) || 0, pieces = [];
    let size = 0;
    for (const reader = answer.body.getReader(); ;) {
      const { done, value } = await reader.read();
      if (done) break;
      size += value.length;
      if (size > max) {
        reader.cancel();
        throw new Fault("It is larger than a recording can be.");
      }
      pieces.push(value);
      if (all) progress(size / all);
    }
    if (all && size !== all) throw new Fault("It was cut off on its way. Try again.");
    const bytes = new Uint8Array(size);
    let at = 0;
    for (const piece of pieces) {
      bytes.set(piece, at);
      at += piece.length;
    }
    return bytes;
  };

  // digest is the SHA-256 of bytes, in hex.
  const digest = async (bytes) => {
    if (!globalThis.crypto?.subtle) throw new Fault("Browsers compute hashes on https pages only. Open this page by https.");
    return [...new Uint8Array(await crypto.subtle.digest("SHA-256", bytes))].map((b) => b.toString(16).padStart(2, "0")).join("");
  };

  // parts are where the encrypted parts are. The last may be cut off, where a host stopped.
  const parts = (bytes) => {
    for (let i = 0; i < magic.length; i++) {
      if (bytes[i] !== magic.charCodeAt(i)) throw new Fault("This is no recording of Sallyport.");
    }
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length), found = [];
    for (let at = magic.length; at < bytes.length;) {
      if (at + 4 > bytes.length) return { found, cut: true };
      const size = view.getUint32(at);
      if (size > maxPart) throw new Fault("This is no recording of Sallyport.");
      if (at + 4 + size > bytes.length) return { found, cut: true };
      found.push(bytes.subarray(at + 4, at + 4 + size));
      at += 4 + size;
    }
    return { found, cut: false };
  };

  // event reads one line; what is none is a fault.
  const event = (line) => {
    let e;
    try {
      e = JSON.parse(line);
    } catch {
      throw new Fault("A line of the recording cannot be read.");
    }
    if (!Array.isArray(e) || e.length !== 3 || typeof e[0] !== "number" || !(e[0] >= 0 && e[0] <= longest) || typeof e[1] !== "string" || typeof e[2] !== "string") {
      throw new Fault("A line of the recording cannot be read.");
    }
    return { at: e[0], code: e[1], data: e[2] };
  };

  // read is what a recording says: its header, its events, and whether its end is missing.
  const read = async (bytes, keys, progress) => {
    const decrypter = new age.Decrypter();
    try {
      for (const key of keys) decrypter.addIdentity(key.toUpperCase());
    } catch {
      throw new Fault("This is no identity of age: it has a slip in it.");
    }
    const { found, cut } = parts(bytes), decoder = new TextDecoder();
    let header, events = [], breath = performance.now();
    for (const [i, part] of found.entries()) {
      let plain;
      try {
        plain = await decrypter.decrypt(part);
      } catch (e) {
        if (/no identity matched/.test(e.message)) throw new Fault("This key does not open it: it was encrypted for others. Choose another identity.");
        throw new Fault("It cannot be decrypted: it is damaged.");
      }
      if (plain.length > maxPlain) throw new Fault("This is no recording of Sallyport.");
      for (const line of decoder.decode(plain).split("\n")) {
        if (!line) continue;
        if (header) {
          events.push(event(line));
          continue;
        }
        try {
          header = JSON.parse(line);
        } catch { /* said below */ }
        if (header?.version !== 2) throw new Fault("What it says is no asciicast of version 2.");
      }
      if (performance.now() - breath > 40) {
        progress((i + 1) / found.length);
        await pause();
        breath = performance.now();
      }
    }
    if (!header) throw new Fault("Nothing of it has come yet.");
    return { header, events, cut };
  };

  return { Fault, identities, fetched, digest, read, pause };
})();
