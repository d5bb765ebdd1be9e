// One's own labels: the newest first, to look at again and to correct.

const FILTERS = { all: "All", draft: "Drafts", done: "Finished", skipped: "Skipped" };
const KINDS = { ranking: "Ranking", demonstration: "Answer" };

let own = []; // as the server lists them
let filter = "all";

const shownOwn = () => own.filter(({ status }) => filter === "all" || status === filter);

async function loadOwn() {
  own = await getOwn(labeler.id);
  return own;
}

function showOwn() {
  const filters = Object.entries(FILTERS).map(([name, words]) => {
    const count = name === "all" ? own.length : own.filter(({ status }) => status === name).length;
    const press = button("", `${words} ${count}`, () => {
      filter = name;
      showOwn();
      $("own-filter").querySelector("[aria-pressed=true]").focus();
    });
    press.setAttribute("aria-pressed", String(filter === name));
    return press;
  });
  $("own-filter").replaceChildren(...filters);
  const rows = shownOwn().map((label) => {
    const row = make("li");
    const open = button("own", "", () => openOwn(label.id));
    const preview = make("span", "preview", label.preview);
    preview.dir = "auto";
    const time = make("time", "faint", new Date(label.updated_at).toLocaleString());
    time.dateTime = label.updated_at;
    const kept = drafts.get(label.id);
    const words = kept ? "unsaved" : STATUSES[label.status];
    open.append(make("span", `status ${kept ? "draft" : label.status}`, words),
      make("span", "kind faint", KINDS[label.kind]), preview, time);
    row.append(open);
    return row;
  });
  $("own-list").replaceChildren(...rows);
  if (!rows.length) $("own-list").append(make("li", "faint", "None yet."));
}

// The label before (+1: older) or after (-1: newer) the open one in the list.
async function neighbour(step) {
  if ((await insist(loadOwn)) === null) return undefined;
  const list = mode === "own" ? shownOwn() : own;
  const at = list.findIndex(({ id }) => id === task?.id);
  const next = list[at < 0 ? (step > 0 ? 0 : -1) : at + step];
  if (next) return openOwn(next.id);
  tell(step > 0 ? "No older label" : "No newer label");
  return undefined;
}
