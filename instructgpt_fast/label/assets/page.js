// The page: signing in, what is shown, and what the person's actions do. Talks with the server it came from and with
// nothing else.

const AGAIN = 2000; // milliseconds until an unreachable server is asked again for a task
const STATES = {
  saved: "Saved", saving: "Saving…", held: "Correction kept in this browser",
  offline: "Offline: kept in this browser", lost: "Offline, and this browser keeps nothing", refused: "Not saved",
  contested: "Two versions", closed: "Open in another tab",
};
const TROUBLE = new Set(["offline", "lost", "refused", "contested"]);
const VIEWS = ["sign-in", "elsewhere", "nothing", "own", "task"];

let mode = "ranking"; // or "demonstration" or "own"
let asked = 0; // counts what was asked for, so that only the last answer is shown

// ---- what is shown ----

function showView(name) {
  for (const view of VIEWS) $(view).hidden = view !== name;
  // Keys typed from now on are not for what is no longer there.
  if (document.activeElement.closest("[hidden]")) $("main").focus();
  for (const tab of $("modes").children) {
    if (tab.dataset.mode === mode) tab.setAttribute("aria-current", "page");
    else tab.removeAttribute("aria-current");
  }
}

// The task as it was just opened.
function showTask() {
  const ranking = task.kind === "ranking";
  for (const id of ["answers-head", "answers", "side"]) $(id).hidden = !ranking;
  $("writing").hidden = ranking;
  $("task").classList.toggle("ranking", ranking);
  showStatus();
  showView("task");
  showPrompt();
  if (ranking) showAnswers();
  refill("note");
  refill("response");
  show();
  scrollTo({ top: 0, behavior: "instant" });
}

// A new field for each task: the browser's own undo would bring words of the task before into the old one.
function refill(name) {
  const old = $(name);
  const field = old.cloneNode();
  const focused = document.activeElement === old;
  old.replaceWith(field);
  field.value = work[name] ?? "";
  if (focused && name === "response") field.focus();
}

// What the label is at the server, and so what can be done with it.
function showStatus() {
  $("opened").hidden = task.status !== "done" && task.status !== "skipped";
  $("opened").textContent = task.status === "done"
    ? "You finished this label. It stays as it is until you save a correction."
    : "You skipped this task. Whatever you do makes it a draft again.";
  $("submit-words").textContent = task.status === "done" ? "Save the correction" : "Submit";
  $("skip-words").textContent = task.status === "done" ? "Leave it as it was" : "Skip";
}

// What the work has changed.
function show() {
  if (task.kind === "ranking") {
    showSummaries();
    showRating();
    showBoard();
    placeSide();
  } else {
    const { response } = work;
    const words = response.trim() ? response.trim().split(/\s+/).length : 0;
    $("counts").textContent = `${plural(words, "word")}, ${plural([...response].length, "character")}`;
  }
  const left = missing();
  $("left").textContent = left ? `Still to do: ${left}` : "Complete";
  $("left").classList.toggle("complete", !left);
  $("undo").disabled = !past.length && !(before && untouched());
}

// On a narrow page the rating follows the answer that it is about.
const narrow = () => matchMedia("(max-width: 899px)").matches;

function placeSide() {
  const rating = $("rating");
  const card = answerCards()[chosen];
  if (narrow() ? rating.previousSibling === card : rating.parentElement === $("side")) return;
  const focused = rating.contains(document.activeElement) ? document.activeElement : null;
  if (narrow()) card.after(rating);
  else $("side").prepend(rating);
  focused?.focus({ preventScroll: true });
}

// Only trouble and its end are read aloud; "Saving" and "Saved" at every key would be too much.
function showState(name, detail = "") {
  const was = $("saved").dataset.state;
  if (name !== was && TROUBLE.has(name)) tell(STATES[name]);
  if (name === "saved" && TROUBLE.has(was)) tell("Everything is saved again");
  $("saved").textContent = detail ? `${STATES[name]}: ${detail}` : STATES[name];
  $("saved").dataset.state = name;
}

function showProgress({ done, remaining, total, waiting }) {
  $("bar").max = Math.max(1, done + remaining);
  $("bar").value = done;
  $("progress-words").textContent = `${done} done, ${remaining} left`;
  $("progress-words").title = `${plural(total, "task")} of this kind in all`;
  $("progress").hidden = false;
  const more = waiting ? ` ${plural(waiting, "prompt")} still wait for answers to rank; look again in a while.` : "";
  $("nothing-words").textContent = `You have finished ${plural(done, "label")}.${more}`;
}

// ---- what the person does to the work ----

// Alter the work, say what was done, show it.
function changed(alter, words) {
  if (!change(alter)) return;
  tell(typeof words === "function" ? words() : words);
  show();
}

function choosing(index) {
  chosen = index;
  show();
  if (!narrow() || !$("board").contains(document.activeElement)) revealAnswer();
  const { id } = answerAt(index);
  tell(`Answer ${letterOf(index)}: ${isRated(id) ? "rated" : "to rate"}, ${placeInWords(id)}`);
}

const chooseBy = (by) => choosing((chosen + by + task.answers.length) % task.answers.length);

const unfold = () => answerCards()[chosen].querySelector(".unfold")?.click();

const startWriting = () => $(task.kind === "ranking" ? "note" : "response").focus();

function undo() {
  if (when.task() && step(past, future)) {
    tell("Undone");
    show();
  } else if (before && (!when.task() || untouched())) {
    openOwn(before);
    before = null;
  } else {
    tell("Nothing to undo");
  }
}

function redo() {
  if (!step(future, past)) return;
  tell("Done again");
  show();
}

function goToMissing() {
  if (task.kind === "demonstration") return $("response").focus();
  const index = firstOpen();
  return index >= 0 && choosing(index);
}

async function submit() {
  const left = missing();
  if (left) {
    goToMissing();
    tell(`Still to do: ${left}`);
    return;
  }
  await finish("done", "Saved");
}

async function skip() {
  if (task.status !== "done") return finish("skipped", "Skipped. Press u to come back to it");
  if (drafts.get(task.id)) drafts.drop(task.id);
  outbox.show();
  tell("Left as it was");
  return goOn();
}

const goOn = () => (mode === "own" ? enter("own") : nextTask());

async function finish(status, words) {
  keep(status);
  finishing = { id: task.id, words };
  const result = await outbox.deliver(task.id);
  if (result === "offline") tell("The server cannot be reached. It is kept in this browser and sent when it is back");
  else if (result === "refused") tell(`Not taken: ${outbox.reason}`);
}

// The server has a label, now or after some tries.
function saved(id, revision, status) {
  if (task?.id === id) {
    Object.assign(task, { revision, status });
    showStatus();
  }
  if (finishing?.id !== id || status === "draft") return;
  const { words } = finishing;
  finishing = null;
  before = id;
  tell(words);
  if (task?.id === id) goOn(); // else another one was opened meanwhile
}

// ---- where the work comes from ----

// Ask the server until it answers; null when something else was asked for meanwhile.
async function insist(ask) {
  const mine = ++asked;
  for (;;) {
    try {
      const answer = await ask();
      if (asked !== mine) return null;
      complain("");
      return answer;
    } catch (error) {
      if (asked !== mine) return null;
      complain(mayPass(error) ? `${error.message} Trying again…` : error.message);
      if (!mayPass(error)) return null;
      await wait(AGAIN);
      if (asked !== mine) return null;
    }
  }
}

async function nextTask() {
  const answer = await insist(() => getNext(labeler.id, mode));
  if (!answer) return;
  showProgress(answer.progress);
  if (answer.task) {
    openTask(answer.task);
    showTask();
  } else {
    task = null;
    showView("nothing");
  }
}

async function openOwn(id) {
  const answer = await insist(() => getTask(labeler.id, id));
  if (!answer) return;
  openTask(answer);
  showTask();
}

async function enter(name) {
  mode = name;
  if (name === "own") {
    if ((await insist(loadOwn)) === null) return;
    task = null;
    showView("own");
    $("progress").hidden = true;
    showOwn();
  } else {
    localStorage.setItem(`${PLACE}.mode`, name);
    await nextTask();
  }
}

function enterNext() {
  const names = [...form.kinds, "own"];
  return enter(names[(names.indexOf(mode) + 1) % names.length]);
}

// ---- signing in ----

function askForName() {
  showView("sign-in");
  $("name").focus();
}

async function signIn(name) {
  form ??= await getForm();
  labeler = await signInAs(name);
  for (const store of [sessionStorage, localStorage]) store.setItem(`${PLACE}.name`, labeler.name);
  $("who").textContent = labeler.name;
  for (const id of ["modes", "tools"]) $(id).hidden = false;
  for (const tab of $("modes").children) tab.hidden = !["own", ...form.kinds].includes(tab.dataset.mode);
  if (!$("fields").children.length) {
    makeRating();
    makeMoves();
    makeHelp();
  }
  holdAlone(labeler.name, begin, stop);
}

// This tab has the labeler's work to itself.
async function begin() {
  drafts = new Drafts(labeler.name);
  outbox = new Outbox(drafts, labeler.id, { state: showState, saved, contested: settleConflicts });
  const arrived = await insist(takeInFound);
  if (arrived === null) return;
  await outbox.deliverAll();
  outbox.show();
  const last = localStorage.getItem(`${PLACE}.mode`);
  await enter(form.kinds.includes(last) ? last : form.kinds[0]);
}

// What an earlier visit left unsent, where its tasks are this server's.
async function takeInFound() {
  for (const entry of drafts.found()) {
    const given = await getTask(labeler.id, entry.id).catch((error) => {
      if (mayPass(error)) throw error;
      return null;
    });
    if (given && markOf(given) === entry.mark) drafts.takeIn({ ...entry, refused: null });
  }
  return true;
}

function stop() {
  outbox.close();
  task = null;
  asked += 1;
  showView("elsewhere");
}

// Run `start` once no other tab of this browser works for the labeler, or now, by taking it over; `stopped` when
// another one takes over. Without locks (a page that is not from this machine) every tab may work.
function holdAlone(name, start, stopped, options = { ifAvailable: true }) {
  if (!navigator.locks) {
    start();
    return;
  }
  navigator.locks.request(`${PLACE}/${name}`, options, (lock) => {
    if (!lock) {
      showView("elsewhere");
      $("here").onclick = () => holdAlone(name, start, stopped, { steal: true });
      return undefined;
    }
    start();
    return new Promise(() => {}); // held until the tab ends
  }).catch(() => {
    stopped();
    $("here").onclick = () => holdAlone(name, start, stopped, { steal: true });
  });
}

function wire() {
  document.addEventListener("keydown", onKey);
  $("sign-in").onsubmit = async (event) => {
    event.preventDefault();
    try {
      await signIn($("name").value.trim());
      complain("");
    } catch (error) {
      complain(error.message);
    }
  };
  for (const tab of $("modes").children) tab.onclick = () => enter(tab.dataset.mode);
  for (const [id, act] of Object.entries({ submit, skip, undo, left: goToMissing })) $(id).onclick = () => act();
  $("open-help").onclick = () => $("help").showModal();
  $("leave").onclick = async () => {
    await outbox?.deliverAll();
    for (const store of [sessionStorage, localStorage]) store.removeItem(`${PLACE}.name`);
    location.reload();
  };
  $("task").oninput = ({ target }) => {
    if (!when.task() || !(target.id in work)) return;
    write(target.id, target.value);
    if (task.kind === "demonstration") show();
  };
  $("beside").checked = localStorage.getItem(`${PLACE}.beside`) === "yes";
  const besideOrNot = () => $("answers").classList.toggle("beside", $("beside").checked);
  $("beside").onchange = () => {
    localStorage.setItem(`${PLACE}.beside`, $("beside").checked ? "yes" : "no");
    besideOrNot();
  };
  besideOrNot();
  $("conflict").oncancel = (event) => event.preventDefault(); // one of the two must be chosen
  addEventListener("resize", () => task?.kind === "ranking" && !$("task").hidden && placeSide());
  addEventListener("online", () => outbox?.deliverAll());
  addEventListener("beforeunload", (event) => drafts?.full && drafts.all().length && event.preventDefault());
  addEventListener("pagehide", () => outbox?.deliverAll());
  document.addEventListener("visibilitychange", () => outbox?.deliverAll());
}

async function start() {
  wire();
  // Two people may share a browser: a tab stays with the one who signed in there.
  const name = sessionStorage.getItem(`${PLACE}.name`) ?? localStorage.getItem(`${PLACE}.name`);
  if (!name) return askForName();
  const signed = await insist(() => signIn(name).then(() => true));
  if (signed === null) askForName();
  return undefined;
}

start();
