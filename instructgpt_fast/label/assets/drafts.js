// What is not on the server yet, kept in this browser: one entry a task, written at every change and dropped once the
// server has it.
//
// An entry: {id, mark, payload, status, revision: the server's that it builds on, version: counts the changes here,
// sent: digests of what was tried to send since then, finished: whether the server's copy is a finished label, held: whether it
// waits for the person, conflict: the server's other copy, refused: why the server does not take it}.

const PLACE = "instructgpt_fast.label";

class Drafts {
  // name: the labeler's. What is found here is not used before it is taken in: another database, served at the same
  // address on another day, has other tasks under the same numbers.
  constructor(name) {
    this.place = `${PLACE}/${encodeURIComponent(name)}/`;
    this.entries = new Map();
    this.full = false; // whether the browser did not take the last one
  }

  found() {
    const keys = Array.from({ length: localStorage.length }, (_, at) => localStorage.key(at));
    const mine = keys.filter((key) => key.startsWith(this.place));
    return mine.map((key) => JSON.parse(localStorage.getItem(key)));
  }

  takeIn(entry) {
    this.entries.set(entry.id, entry);
  }

  get(id) {
    return this.entries.get(id);
  }

  all() {
    return [...this.entries.values()];
  }

  put(entry) {
    this.entries.set(entry.id, entry);
    try {
      localStorage.setItem(this.place + entry.mark, JSON.stringify(entry));
      this.full = false;
    } catch {
      this.full = true; // it is still sent to the server, and the person is told that it is kept nowhere else
    }
    return entry;
  }

  drop(id) {
    localStorage.removeItem(this.place + this.entries.get(id).mark);
    this.entries.delete(id);
  }
}

// What a task is, whatever its number: a digest of its kind, its prompt and its answers.
function markOf({ id, kind, prompt, answers }) {
  const texts = answers.map((answer) => [answer.id, answer.text]).sort();
  return digest(JSON.stringify([id, kind, prompt, texts]));
}

function digest(text) {
  let [one, other] = [0x811c9dc5, 0x01000193]; // FNV-1a from two starting points, 64 bits in all
  for (let at = 0; at < text.length; at++) {
    one = Math.imul(one ^ text.charCodeAt(at), 0x01000193);
    other = Math.imul(other ^ text.charCodeAt(at), 0x01000197) ^ (one >>> 15);
  }
  return [one, other].map((part) => (part >>> 0).toString(16).padStart(8, "0")).join("");
}

// One digest for equal payloads: keys in order, what is null left out, and no order within a tie.
function contentOf(payload) {
  const ranking = payload?.ranking?.map((group) => [...group].sort());
  const text = JSON.stringify({ ...payload, ranking }, (_, part) => {
    if (part === null || typeof part !== "object" || Array.isArray(part)) return part;
    const keys = Object.keys(part).filter((key) => part[key] !== null && part[key] !== undefined).sort();
    return Object.fromEntries(keys.map((key) => [key, part[key]]));
  });
  return digest(text);
}
