// Two versions of one label: both are shown, what differs is marked, and the person chooses.

const STATUSES = { draft: "draft", done: "finished", skipped: "skipped", new: "nothing yet" };
const SAID = { true: "yes", false: "no", null: "open" };

// What a version says, as rows of [what, value].
function rowsOf(kind, answers, payload, status) {
  const work = whole(kind, answers, payload);
  const rows = [["State", STATUSES[status]]];
  if (kind === "demonstration") return [...rows, ["Answer", work.response]];
  const letter = (id) => letterOf(answers.findIndex((answer) => answer.id === id));
  rows.push(["Ranking", inWords(work.ranking, letter) || "none yet"]);
  answers.forEach(({ id }, index) => {
    const { overall, fields } = work.ratings[id];
    rows.push([`${letterOf(index)} overall`, overall ?? "open"]);
    for (const { name, question } of form.fields) rows.push([`${letterOf(index)} ${question}`, SAID[fields[name]]]);
  });
  return [...rows, ["Note", work.note || "none"]];
}

function versionOf(title, rows, others, choose) {
  const version = make("section", "version");
  const list = make("dl");
  rows.forEach(([what, value], index) => {
    // Of what is equal only the first lines tell something.
    const differs = String(value) !== String(others[index][1]);
    if (!differs && index > 1) return;
    const said = make("dd", differs ? "differs" : "", value);
    said.dir = "auto";
    list.append(make("dt", "", what), said);
  });
  version.append(make("h3", "", title), list, button("main", `Keep ${title.toLowerCase()}`, choose));
  return version;
}

// Ask about one entry; resolves when the person has chosen.
function askWhich(entry) {
  const { conflict } = entry;
  const { kind, answers } = conflict;
  const mine = rowsOf(kind, answers, entry.payload, entry.status);
  const theirs = rowsOf(kind, answers, conflict.payload, conflict.status);
  return new Promise((resolve) => {
    const choose = (keepsMine) => () => {
      $("conflict").close();
      resolve(keepsMine);
    };
    $("versions").replaceChildren(
      versionOf("This browser's", mine, theirs, choose(true)),
      versionOf("The server's", theirs, mine, choose(false)),
    );
    $("conflict").showModal();
  });
}

let asking = false;

async function settleConflicts() {
  if (asking) return;
  asking = true;
  for (;;) {
    const entry = drafts.all().find((one) => one.conflict);
    if (!entry) break;
    const { conflict } = entry;
    const mine = await askWhich(entry);
    const settled = outbox.settle(entry.id, mine);
    if (task?.id === entry.id) {
      task = { ...task, revision: conflict.revision, status: conflict.status, payload: conflict.payload };
      openTask(task);
      showTask();
    }
    tell(mine ? "This browser's version is kept" : "The server's version is kept");
    await settled;
  }
  asking = false;
}
