// The task that is open, the person's work on it, and what is still missing.

let form = null; // the form as the server gives it: what is asked about an answer, and what a finished label needs
let labeler = null; // {id, name}
let drafts = null;
let outbox = null;
let task = null; // the server's: {id, kind, prompt, answers, status, revision}
let work = null; // the payload as it stands here
let chosen = 0; // which answer the keys and the rating act on
let past = []; // what undo brings back: payloads as text
let future = [];
let finishing = null; // {id, words}: what the person has submitted or skipped and the server does not have yet
let before = null; // id of the task that was finished or skipped before this one

const answerAt = (index) => task.answers[index];
const ratingOf = (id) => work.ratings[id];
const nameOf = (id) => letterOf(task.answers.findIndex((answer) => answer.id === id));

// A payload with every part in it, whatever a draft left out.
function whole(kind, answers, payload) {
  if (kind === "demonstration") return { response: payload?.response ?? "" };
  const ratings = answers.map(({ id }) => {
    const given = payload?.ratings?.[id];
    const fields = form.fields.map(({ name }) => [name, given?.fields?.[name] ?? null]);
    return [id, { overall: given?.overall ?? null, fields: Object.fromEntries(fields) }];
  });
  return {
    ratings: Object.fromEntries(ratings), ranking: structuredClone(payload?.ranking ?? []), note: payload?.note ?? "",
  };
}

function openTask(given) {
  task = given;
  const kept = drafts.get(task.id);
  work = whole(task.kind, task.answers, kept ? kept.payload : task.payload);
  past = [];
  future = [];
  const open = task.kind === "ranking" ? task.answers.findIndex((answer) => !isRated(answer.id)) : 0;
  chosen = Math.max(0, open);
}

function keep(status = "draft") {
  finishing = null;
  outbox.keep({
    id: task.id, mark: markOf(task), payload: structuredClone(work), status, revision: task.revision,
    finished: task.status === "done",
  });
}

// Alter the work as one step that can be undone.
function change(alter) {
  const now = JSON.stringify(work);
  alter(work);
  if (JSON.stringify(work) === now) return false;
  past.push(now);
  future = [];
  keep();
  return true;
}

// Text has the undo of its own field.
function write(field, text) {
  work[field] = text.toWellFormed?.() ?? text;
  keep();
}

function step(from, to) {
  if (!from.length) return false;
  const { note } = work;
  to.push(JSON.stringify(work));
  work = { ...JSON.parse(from.pop()), ...(note !== undefined && { note }) };
  keep();
  return true;
}

// Whether undo goes back to the task before: this one is as it was opened.
const untouched = () => !past.length && !future.length && !drafts.get(task.id);

const openFields = (id) => form.fields.filter(({ name }) => ratingOf(id).fields[name] === null);

function isRated(id) {
  if (form.required !== "none" && ratingOf(id).overall === null) return false;
  return form.required !== "all" || !openFields(id).length;
}

const isRanked = (id) => rankOf(work.ranking, id) >= 0;

// What a finished label still needs, in words; "" when nothing.
function missing() {
  if (task.kind === "demonstration") return work.response.trim() ? "" : "an answer";
  const unrated = task.answers.filter(({ id }) => !isRated(id)).map(({ id }) => nameOf(id));
  const unranked = task.answers.filter(({ id }) => !isRanked(id)).map(({ id }) => nameOf(id));
  const parts = [];
  if (unrated.length) parts.push(`rate ${unrated.join(", ")}`);
  if (unranked.length) parts.push(`rank ${unranked.join(", ")}`);
  return parts.join("; ");
}

// The first answer that still needs something.
const firstOpen = () => task.answers.findIndex(({ id }) => !isRated(id) || !isRanked(id));
