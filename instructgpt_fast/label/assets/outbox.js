// Sends what the person does to the server: soon after each change, and again until the server has it.

const QUIET = 400; // milliseconds without a change before a draft is sent
const BUSY = 2000; // milliseconds after which it is sent although changes go on
const RETRIES = [500, 1000, 2000, 4000, 8000]; // milliseconds before each further try; the last one from then on
const REMEMBERED = 5; // of what was tried to send, to know again what arrived although the answer got lost

class Outbox {
  // told: {state(name, detail), saved(id, revision, status), contested(entry)}
  constructor(drafts, labeler, told) {
    Object.assign(this, { drafts, labeler, told, chain: Promise.resolve(), closed: false });
    this.timer = this.retry = this.waiting = this.tries = 0;
    this.offline = this.sending = false;
  }

  // Keep a change here at once, and send it soon.
  keep(change) {
    const before = this.drafts.get(change.id);
    this.drafts.put({
      ...change, revision: before?.revision ?? change.revision, version: (before?.version ?? 0) + 1,
      sent: before?.sent ?? [], conflict: before?.conflict ?? null, refused: null,
    });
    this.show();
    if (change.held) return;
    const now = performance.now();
    this.waiting ||= now;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.deliver(change.id), Math.max(0, Math.min(QUIET, this.waiting + BUSY - now)));
  }

  // Send one entry now, after those on their way: "saved", "offline", "refused", "contested" or "held".
  deliver(id) {
    clearTimeout(this.timer);
    this.waiting = 0;
    const attempt = this.chain.then(() => this.attempt(id));
    this.chain = attempt;
    return attempt;
  }

  deliverAll() {
    clearTimeout(this.retry);
    return Promise.all(this.drafts.all().map((entry) => this.deliver(entry.id)));
  }

  // Another tab goes on with this labeler's work: what is kept is its to send.
  close() {
    this.closed = true;
    clearTimeout(this.timer);
    clearTimeout(this.retry);
  }

  async attempt(id) {
    const entry = this.drafts.get(id);
    if (!entry) return "saved";
    if (entry.conflict) return "contested";
    if (entry.held || this.closed) return "held";
    const { payload, status, revision, version } = entry;
    const sent = [...entry.sent.filter((text) => text !== canonical(payload)), canonical(payload)];
    this.drafts.put({ ...entry, sent: sent.slice(-REMEMBERED) });
    this.sending = true;
    this.show();
    try {
      const answer = await putTask(id, { labeler: this.labeler, revision, payload, status });
      this.arrived(id, answer.revision, status, version);
      return "saved";
    } catch (error) {
      return this.failed(id, status, error);
    } finally {
      this.sending = false;
      this.show();
    }
  }

  arrived(id, revision, status, version) {
    this.offline = false;
    this.tries = 0;
    const entry = this.drafts.get(id);
    if (entry.version === version) this.drafts.drop(id);
    else this.drafts.put({ ...entry, revision, sent: [] }); // changed meanwhile; its own timer sends it
    this.told.saved(id, revision, status);
  }

  failed(id, status, error) {
    const entry = this.drafts.get(id);
    if (error.status === 409) return this.contested(entry, error.body);
    if (mayPass(error)) {
      this.offline = true;
      const pause = RETRIES[Math.min(this.tries, RETRIES.length - 1)];
      this.tries += 1;
      clearTimeout(this.retry);
      if (!this.closed) this.retry = setTimeout(() => this.deliverAll(), pause);
      return "offline";
    }
    this.offline = false;
    // What may not be finished is still worth saving as it is.
    const again = status === "done" && error.status === 422;
    this.drafts.put({ ...entry, status: again ? "draft" : entry.status, refused: error.message });
    return "refused";
  }

  // The server has another version than the one that this one builds on.
  contested(entry, copy) {
    const theirs = canonical(copy.payload);
    if (theirs === canonical(entry.payload) && copy.status === entry.status) {
      this.arrived(entry.id, copy.revision, copy.status, entry.version);
      return "saved";
    }
    if (entry.sent.includes(theirs)) { // it is ours: it arrived, and the answer got lost
      // A finished label stays finished until the person says so again.
      const held = copy.status === "done" && entry.status !== "done";
      this.drafts.put({ ...entry, revision: copy.revision, sent: [], held });
      this.told.saved(entry.id, copy.revision, copy.status);
      return held ? "held" : this.attempt(entry.id);
    }
    this.told.contested(this.drafts.put({ ...entry, conflict: copy }));
    return "contested";
  }

  // The person chose between the two versions.
  settle(id, mine) {
    const { conflict, ...entry } = this.drafts.get(id);
    if (!mine) {
      this.drafts.drop(id);
      this.show();
      return Promise.resolve("saved");
    }
    this.drafts.put({ ...entry, conflict: null, revision: conflict.revision, sent: [] });
    return this.deliver(id);
  }

  show() {
    const entries = this.drafts.all();
    const refused = entries.find((entry) => entry.refused);
    const waiting = entries.filter((entry) => !entry.held && !entry.conflict && !entry.refused);
    if (this.closed) this.told.state("closed");
    else if (entries.some((entry) => entry.conflict)) this.told.state("contested");
    else if (this.offline && waiting.length) this.told.state(this.drafts.full ? "lost" : "offline");
    else if (refused) this.told.state("refused", refused.refused);
    else if (waiting.length) this.told.state("saving");
    else if (entries.length) this.told.state("held");
    else this.told.state("saved");
  }
}
