// What the keys do: one table, which both acts and is shown as help.

const when = { task: () => Boolean(task) && !$("task").hidden, ranking: () => task?.kind === "ranking" && !$("task").hidden };

// [keys as shown, what they do, name of the key, when it acts, action]
const KEYS = [
  ["Ctrl ↵", "Submit, or save the correction", "Ctrl+Enter", when.task, () => submit()],
  ["z", "Skip; a finished label: leave it as it was", "z", when.task, () => skip()],
  ["u", "Undo (also Ctrl Z); after submitting, back to that label", "u", () => true, () => undo()],
  ["Ctrl ⇧ Z", "Do again what was undone", "Ctrl+Shift+Z", when.task, () => redo()],
  ["", "", "Ctrl+Z", () => true, () => undo()],
  ["⇧↑", "Rank the answer better", "Shift+ArrowUp", when.ranking, () => moveChosen(-1)],
  ["⇧↓", "Rank it worse", "Shift+ArrowDown", when.ranking, () => moveChosen(1)],
  ["=", "Tie it with the one above", "=", when.ranking, () => tieChosen()],
  ["⌫", "Take it out of the ranking", "Backspace", when.ranking, () => takeOut()],
  ["", "", "Delete", when.ranking, () => takeOut()],
  ["←", "The answer before", "ArrowLeft", when.ranking, () => chooseBy(-1)],
  ["→", "The next answer", "ArrowRight", when.ranking, () => chooseBy(1)],
  ["0", "Take the overall rating back", "0", when.ranking, () => setOverall(null)],
  ["x", "No to all open questions of the answer", "x", when.ranking, () => restNo()],
  ["v", "Show all of the answer, or less", "v", when.ranking, () => unfold()],
  ["w", "Write: the note, or the answer", "w", when.task, () => startWriting()],
  ["Esc", "Leave a text field", "", () => false, () => {}],
  [",", "My labels: the older one", ",", () => Boolean(labeler), () => neighbour(1)],
  [".", "My labels: the newer one", ".", () => Boolean(labeler), () => neighbour(-1)],
  ["y", "Rankings, answers and my labels in turn", "y", () => Boolean(labeler), () => enterNext()],
  ["?", "This help", "?", () => true, () => $("help").showModal()],
];

// Letters choose answers and digits rate; how many there are, the task and the form say.
function runs(key) {
  if (!when.ranking()) return null;
  const letter = /^[a-i]$/.test(key) ? key.charCodeAt(0) - 97 : -1;
  if (letter >= 0 && letter < task.answers.length) return () => choosing(letter);
  const digit = /^[1-9]$/.test(key) ? Number(key) : -1;
  if (digit >= form.overall.low && digit <= form.overall.high) return () => setOverall(digit);
  const field = key.length === 1 ? FIELD_KEYS.indexOf(key) : -1;
  return field >= 0 && field < form.fields.length ? () => turnField(field) : null;
}

// The key's name. On keyboards of other scripts, or with digits on the shifted side, the key's place counts.
function nameOfKey(event) {
  const { key, code, shiftKey } = event;
  const control = event.ctrlKey || event.metaKey ? "Ctrl+" : "";
  let name = key.length === 1 ? key.toLowerCase() : key;
  // What Latin keyboards have on the places of letters; Hebrew has other signs there too.
  if (/^Key[A-Z]$/.test(code) && !/^[\da-z,.=?]$/i.test(key) && key.length === 1) name = code[3].toLowerCase();
  if (/^Digit\d$/.test(code) && !shiftKey && !/^[\d=?]$/.test(key)) name = code[5];
  if (control && name.length === 1) name = name.toUpperCase();
  const shift = shiftKey && (control || name.length > 1 || /[a-z]/.test(name)) ? "Shift+" : "";
  return control + shift + name;
}

const takesText = (element) =>
  element.matches("textarea, input:not([type=radio], [type=checkbox]), [contenteditable]");

function onKey(event) {
  if (event.isComposing || event.altKey || event.defaultPrevented || document.querySelector("dialog[open]")) return;
  const { target } = event;
  const name = nameOfKey(event);
  if (takesText(target)) {
    if (name === "Escape") $("main").focus();
    if (name !== "Ctrl+Enter") return;
  }
  if (!name.startsWith("Ctrl+") && !$("single-keys").checked) return;
  // Arrows belong to the radios when they have the focus.
  if (target.matches("[type=radio]") && name.startsWith("Arrow")) return;
  const row = KEYS.find(([, , key, acts]) => key === name && acts());
  const action = row ? row[4] : runs(name);
  if (!action) return;
  event.preventDefault();
  action();
}

function makeHelp() {
  const { low, high } = form.overall;
  const last = letterOf(8).toLowerCase();
  const fields = form.fields.map(({ question }, index) => [FIELD_KEYS[index], question]).filter(([key]) => key);
  const rows = [
    [`a … ${last}`, "Choose the answer"], [`${low} … ${high}`, "Its overall rating"],
    ...KEYS.filter(([shown]) => shown).map(([shown, does]) => [shown, does]),
  ];
  const list = (title, entries) => {
    const part = make("section");
    const terms = make("dl");
    for (const [key, does] of entries) {
      const term = make("dt");
      term.append(make("kbd", "", key));
      terms.append(term, make("dd", "", does));
    }
    part.append(make("h3", "", title), terms);
    return part;
  };
  $("keys").replaceChildren(list("Work", rows), list("Questions: yes, no, open", fields));
  $("single-keys").checked = localStorage.getItem(`${PLACE}.single-keys`) !== "no";
  $("single-keys").onchange = ({ target }) => {
    localStorage.setItem(`${PLACE}.single-keys`, target.checked ? "yes" : "no");
  };
}
