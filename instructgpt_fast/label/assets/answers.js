// The prompt and the answers as they are read; one answer is chosen, and the rating and the keys act on it.

const ROLES = { system: "System", user: "User", assistant: "Assistant" };

function textOf(content) {
  const text = make("div", "text", content);
  text.dir = "auto";
  return text;
}

function showPrompt() {
  const turns = task.prompt.map(({ role, content }) => {
    const turn = make("div", `turn ${role}`);
    turn.append(make("h3", "role", ROLES[role] ?? role), textOf(content));
    return turn;
  });
  $("prompt").replaceChildren(...turns);
  turns.forEach((turn) => foldable(turn, turn.lastChild, "turn"));
}

// The cards; on a narrow page the rating stands between them.
const answerCards = () => $("answers").querySelectorAll(".answer");

function showAnswers() {
  $("side").insertBefore($("rating"), $("board"));
  const cards = task.answers.map((answer, index) => {
    const card = make("article", "answer");
    card.setAttribute("aria-label", `Answer ${letterOf(index)}`);
    const head = make("div", "head");
    const choose = button("letter", letterOf(index), () => holding(card, () => choosing(index)));
    choose.setAttribute("aria-label", `Answer ${letterOf(index)}: rate and rank it`);
    head.append(choose, make("span", "summary"));
    card.append(head, textOf(answer.text));
    card.onclick = ({ target }) => {
      // Whoever marks text or presses a button in the card does not mean the card.
      if (target.closest("button, #rating") || !getSelection().isCollapsed || index === chosen) return;
      holding(card, () => choosing(index));
    };
    return card;
  });
  $("answers").replaceChildren(...cards);
  cards.forEach((card, index) => foldable(card, card.lastChild, `answer ${letterOf(index)}`));
}

// Long texts are cut to a good height, with a button that shows the rest.
function foldable(place, text, name) {
  place.classList.add("folded");
  if (text.scrollHeight <= text.clientHeight + 1) {
    place.classList.remove("folded");
    return;
  }
  const unfold = button("unfold", "Show all", () => {
    const folded = place.classList.toggle("folded");
    unfold.textContent = folded ? "Show all" : "Show less";
    unfold.setAttribute("aria-expanded", String(!folded));
    if (folded) place.scrollIntoView({ block: "nearest" });
  });
  unfold.setAttribute("aria-expanded", "false");
  unfold.append(make("span", "unseen", ` of ${name}`));
  place.append(unfold);
}

function showSummaries() {
  task.answers.forEach(({ id }, index) => {
    const card = answerCards()[index];
    const { overall, fields } = ratingOf(id);
    const yes = Object.values(fields).filter((value) => value === true).length;
    const open = openFields(id).length;
    const parts = [];
    if (overall !== null) parts.push(`${overall} of ${form.overall.high}`);
    if (yes) parts.push(`${yes} yes`);
    if (form.required === "all" && open && open < form.fields.length) parts.push(`${open} open`);
    if (isRanked(id)) parts.push(`rank ${rankOf(work.ranking, id) + 1}`);
    card.querySelector(".summary").textContent = parts.join(" · ");
    card.classList.toggle("ready", isRated(id) && isRanked(id));
    card.classList.toggle("chosen", index === chosen);
    const choose = card.querySelector(".letter");
    if (index === chosen) choose.setAttribute("aria-current", "true");
    else choose.removeAttribute("aria-current");
  });
}

// Bring the chosen answer into view, below what stays at the top.
function revealAnswer() {
  answerCards()[chosen].scrollIntoView({ block: "nearest", behavior: calm() ? "instant" : "smooth" });
}

const calm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;
