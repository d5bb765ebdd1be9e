// Sends what the person does to the server: soon after each change, and again until the server has it.

const QUIET = 400; // milliseconds without a change before a draft is sent
const BUSY = 2000; // milliseconds after which it is sent although changes go on
const RETRIES = [500, 1000, 2000, 4000]; // milliseconds before each further try; the last one from then on
const REMEMBERED = 5; // of what was tried to send, to know again what arrived although the answer got lost

class Outbox {
  // told: {state(name, detail), saved(id, revision, status), contested(entry)}
  constructor(drafts, labeler, told) {
    Object.assign(this, { drafts, labeler, told, chain: Promise.resolve(), closed: false });
    this.timer = this.retry = this.waiting = this.tries = 0;
    this.offline = false;
    this.reason = ""; // why the server did not take the last one that it refused
  }

  // Keep a change here at once, and send it soon. A finished label changes only when the person says that the
  // correction is finished too.
  keep(change) {
    const before = this.drafts.get(change.id);
    const held = change.finished && change.status === "draft";
    this.drafts.put({
      ...change, held, revision: before?.revision ?? change.revision, version: (before?.version ?? 0) + 1,
      sent: before?.sent ?? [], conflict: before?.conflict ?? null, refused: null,
    });
    this.show();
    if (held) return;
    const now = performance.now();
    this.waiting ||= now;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.deliverAll(), Math.max(0, Math.min(QUIET, this.waiting + BUSY - now)));
  }

  // Send one entry now, after those on their way: "saved", "offline", "refused", "contested" or "held".
  deliver(id) {
    const attempt = this.chain.then(() => this.attempt(id));
    this.chain = attempt.catch(reportError); // a mistake in one must not keep the others back
    return attempt;
  }

  deliverAll() {
    clearTimeout(this.timer);
    clearTimeout(this.retry);
    this.waiting = 0;
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
    if (entry.refused) return "refused";
    if (entry.held || this.closed) return "held";
    const { payload, status, revision, version } = entry;
    const content = contentOf(payload);
    const sent = [...entry.sent.filter((other) => other !== content), content];
    this.drafts.put({ ...entry, sent: sent.slice(-REMEMBERED) });
    this.show();
    let answer;
    try {
      if (this.offline) await this.checkServer(entry);
      answer = await putTask(id, { labeler: this.labeler, revision, payload, status });
    } catch (error) {
      const result = await this.failed(id, status, error);
      this.show();
      return result;
    }
    this.arrived(id, answer.revision, status, version);
    this.show();
    return "saved";
  }

  // A server that comes back may have another database, where this task's number means another task.
  async checkServer({ id, mark }) {
    if (markOf(await getTask(this.labeler, id)) === mark) return;
    const other = new Error("The server now has other tasks; this label stays in this browser.");
    throw Object.assign(other, { status: 404 });
  }

  arrived(id, revision, status, version) {
    this.offline = false;
    this.tries = 0;
    const entry = this.drafts.get(id);
    const finished = status === "done";
    if (entry?.version === version) this.drafts.drop(id);
    // It was changed meanwhile; its own timer sends it.
    else if (entry) this.drafts.put({ ...entry, revision, sent: [], finished, held: finished && entry.status === "draft" });
    this.told.saved(id, revision, status);
  }

  failed(id, status, error) {
    const entry = this.drafts.get(id);
    if (!entry) return "held"; // the person took it back meanwhile
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
    this.reason = error.message;
    if (status === "done" && error.status === 422) return this.notFinished(entry);
    this.drafts.put({ ...entry, refused: error.message });
    return "refused";
  }

  // What may not be finished yet is still worth saving as it is.
  async notFinished(entry) {
    this.drafts.put({ ...entry, status: "draft", held: entry.finished });
    if (!entry.finished) await this.attempt(entry.id);
    return "refused";
  }

  // The server has another version than the one that this one builds on.
  contested(entry, copy) {
    const theirs = contentOf(copy.payload);
    const asFinal = entry.status === "draft" || entry.status === copy.status;
    if (theirs === contentOf(entry.payload) && asFinal && copy.status !== "new") {
      this.arrived(entry.id, copy.revision, copy.status, entry.version);
      return "saved";
    }
    if (entry.sent.includes(theirs)) { // it is ours: it arrived, and the answer got lost
      const finished = copy.status === "done";
      const held = finished && entry.status === "draft";
      this.drafts.put({ ...entry, revision: copy.revision, sent: [], finished, held });
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
    const finished = conflict.status === "done";
    const held = finished && entry.status === "draft";
    this.drafts.put({ ...entry, conflict: null, revision: conflict.revision, sent: [], finished, held });
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
