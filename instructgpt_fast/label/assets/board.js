// The ranking as rows of cards: dragged with mouse or finger, or moved by keys and buttons.

const STARTS = 5; // pixels that a pointer moves before it drags; less is a click
const EDGE = 60; // pixels from the edge of the window within which a drag scrolls
const BETWEEN = 0.28; // of a row's height at its top and bottom that means "between the rows"; the rest means "tied"

let drag = null; // {id, card, ghost, from: [x, y], at: [x, y], target}

function showBoard() {
  const focused = $("board").contains(document.activeElement) ? document.activeElement.dataset.id : null;
  const rows = work.ranking.map((group, rank) => {
    const row = make("li", "rank");
    const cards = make("div", "cards");
    cards.append(...group.map(cardOf));
    const place = make("span", "place", rank + 1);
    place.setAttribute("aria-hidden", "true");
    row.append(place, cards);
    return row;
  });
  $("ranks").replaceChildren(...rows);
  const rest = task.answers.map(({ id }) => id).filter((id) => !isRanked(id));
  const hint = rest.length ? "Not ranked yet" : "All ranked. Drag here to take one out.";
  $("pool").replaceChildren(make("p", "faint", hint), ...rest.map(cardOf));
  $("board").classList.toggle("started", rows.length > 0);
  if (focused) $("board").querySelector(`[data-id="${CSS.escape(focused)}"]`)?.focus();
  showMoves();
}

function cardOf(id) {
  const index = task.answers.findIndex((answer) => answer.id === id);
  const letter = letterOf(index);
  const { overall } = ratingOf(id);
  const { text } = answerAt(index);
  const card = button("card", "", () => holding($("board"), () => choosing(index)));
  const preview = make("span", "preview", text.slice(0, 120));
  preview.dir = "auto";
  card.append(make("span", "letter", letter), preview, make("span", "score", overall ?? ""));
  card.dataset.id = id;
  card.setAttribute("aria-label", `${letter}: ${placeInWords(id)}`);
  if (id === answerAt(chosen).id) card.setAttribute("aria-current", "true");
  card.onpointerdown = (event) => startDrag(event, id, card);
  return card;
}

function placeInWords(id) {
  const rank = rankOf(work.ranking, id);
  if (rank < 0) return "not ranked yet";
  const tied = work.ranking[rank].filter((other) => other !== id).map(nameOf);
  const words = `rank ${rank + 1} of ${work.ranking.length}`;
  return tied.length ? `${words}, tied with ${tied.join(", ")}` : words;
}

function makeMoves() {
  const moves = [
    ["Better", "⇧↑", () => moveChosen(-1)], ["Worse", "⇧↓", () => moveChosen(1)],
    ["Tie above", "=", tieChosen], ["Take out", "⌫", takeOut],
  ];
  $("moves").replaceChildren(...moves.map(([words, key, press]) => {
    const move = button("", `${words} `, press);
    move.append(make("kbd", "", key));
    return move;
  }));
}

function showMoves() {
  const { id } = answerAt(chosen);
  $("moves").setAttribute("aria-label", `Move answer ${letterOf(chosen)}`);
  const [up, , tie, out] = $("moves").children;
  const at = rankOf(work.ranking, id);
  up.disabled = at === 0 && work.ranking[0].length === 1;
  tie.disabled = at === 0 || !work.ranking.length;
  out.disabled = at < 0;
}

function rerank(ranking, id) {
  changed((now) => (now.ranking = ranking), () => `${nameOf(id)}: ${placeInWords(id)}`);
}

function moveChosen(step) {
  const { id } = answerAt(chosen);
  rerank(move(work.ranking, id, step), id);
}

function tieChosen() {
  const { id } = answerAt(chosen);
  rerank(tieAbove(work.ranking, id), id);
}

function takeOut() {
  const { id } = answerAt(chosen);
  rerank(without(work.ranking, id), id);
}

// ---- dragging ----

function startDrag(event, id, card) {
  if (event.button !== 0 || drag) return;
  drag = { id, card, ghost: null, from: [event.clientX, event.clientY], target: null };
  card.setPointerCapture(event.pointerId);
  card.onpointermove = moveDrag;
  card.onpointerup = () => endDrag(true);
  card.onpointercancel = card.onlostpointercapture = () => endDrag(false);
}

function moveDrag({ clientX, clientY }) {
  if (!drag) return;
  drag.at = [clientX, clientY];
  if (!drag.ghost) {
    if (Math.hypot(clientX - drag.from[0], clientY - drag.from[1]) < STARTS) return;
    liftCard();
  }
  followPointer();
}

function liftCard() {
  const { left, top, width } = drag.card.getBoundingClientRect();
  drag.grip = [drag.from[0] - left, drag.from[1] - top];
  drag.ghost = drag.card.cloneNode(true);
  drag.ghost.classList.add("ghost");
  drag.ghost.style.width = `${width}px`;
  drag.ghost.setAttribute("aria-hidden", "true");
  drag.card.classList.add("lifted");
  // Outside the board, whose rows are what it is dropped on.
  document.body.append(drag.ghost);
  document.body.classList.add("dragging");
  scrollAtEdges();
}

function followPointer() {
  const [x, y] = drag.at;
  drag.ghost.style.transform = `translate(${x - drag.grip[0]}px, ${y - drag.grip[1]}px)`;
  drag.target = targetAt(x, y);
  showTarget(drag.target);
}

// Where a card dropped here would go: {at} before a rank, {tie} with one, {out} of the ranking, or nowhere.
function targetAt(x, y) {
  const inside = ({ left, right, top, bottom }) => x >= left && x <= right && y >= top && y <= bottom;
  const board = $("board").getBoundingClientRect();
  if (x < board.left || x > board.right || y < board.top - EDGE || y > board.bottom) return null;
  if (inside($("pool").getBoundingClientRect())) return { out: true };
  const rows = [...$("ranks").children];
  for (const [index, row] of rows.entries()) {
    const { top, bottom, height } = row.getBoundingClientRect();
    const margin = height * BETWEEN;
    if (y < top + margin) return { at: index };
    if (y <= bottom - margin) return { tie: index };
  }
  return { at: rows.length };
}

function showTarget(target) {
  const rows = [...$("ranks").children];
  const last = target?.at === rows.length;
  rows.forEach((row, index) => {
    row.classList.toggle("insert", target?.at === index);
    row.classList.toggle("append", last && index === rows.length - 1);
    row.classList.toggle("tie", target?.tie === index);
  });
  $("pool").classList.toggle("target", Boolean(target?.out));
  $("ranks").classList.toggle("target", last && !rows.length);
}

// The page and the side column go along when a card is held at their edges.
function scrollAtEdges() {
  if (!drag?.ghost) return;
  const y = drag.at[1];
  const speed = y < EDGE ? y - EDGE : y > innerHeight - EDGE ? y - (innerHeight - EDGE) : 0;
  if (speed) {
    $("side").scrollBy(0, speed / 5);
    scrollBy({ top: speed / 5, behavior: "instant" });
    followPointer();
  }
  requestAnimationFrame(scrollAtEdges);
}

function endDrag(drop) {
  if (!drag) return;
  const { id, card, ghost, target } = drag;
  drag = null;
  card.onpointermove = card.onpointerup = card.onpointercancel = card.onlostpointercapture = null;
  if (!ghost) return; // a click
  ghost.remove();
  card.classList.remove("lifted");
  document.body.classList.remove("dragging");
  showTarget(null);
  // The click that follows the release is no click.
  addEventListener("click", swallow, { capture: true, once: true });
  setTimeout(() => removeEventListener("click", swallow, { capture: true }));
  if (!drop || !target) return;
  holding($("board"), () => {
    chosen = task.answers.findIndex((answer) => answer.id === id);
    const { ranking } = work;
    if (target.out) rerank(without(ranking, id), id);
    else if (target.tie === undefined) rerank(placeAt(ranking, id, target.at), id);
    else rerank(tieWith(ranking, id, target.tie), id);
    show();
  });
}

function swallow(event) {
  event.stopPropagation();
  event.preventDefault();
}
