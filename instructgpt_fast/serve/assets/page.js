// The chat page: talks with the server it came from and with nothing else. Text of a model or of a person goes into the
// page as textContent only, so that nothing in it is ever markup.

const NEAR_END = 80; // pixels: whoever is this near to the end of the talk is taken along as it grows
const REMEMBERED = ["system", "temperature", "top_p", "max_tokens", "seed"];
const WELCOME = {
  dialogue: {
    promise: "It was trained to follow instructions.",
    starters: [
      "Explain the moon landing to a six year old.",
      "Write a short poem about a wise frog.",
      "Why is it important to eat socks after meditating?",
    ],
  },
  raw: {
    promise: "It goes on from where you stop, and remembers nothing of what was said before.",
    starters: [
      "It is a truth universally acknowledged, that", "Call me", "Once upon a time, in a very small computer,",
    ],
  },
};

const $ = (id) => document.getElementById(id);

function make(tag, className = "", text = "") {
  const element = document.createElement(tag);
  element.className = className;
  element.textContent = text;
  return element;
}

let models = []; // what the server offers: {id, prompt_format}
let turns = []; // {asked, answers: [text of the left side, text of the right]}; a text is "" where none came
let following = 0; // the frame at which the talk is scrolled to its end
let running = null; // the AbortController of the answers that are streaming

// ---- the talk ----

// Once a frame: to ask for the height is to lay the whole talk out, which is too dear to do for each token.
function follow() {
  if (following) return;
  const main = document.querySelector("main");
  const near = main.scrollHeight - main.scrollTop - main.clientHeight < NEAR_END;
  following = requestAnimationFrame(() => {
    following = 0;
    if (near) main.scrollTop = main.scrollHeight;
  });
}

async function ask() {
  const asked = $("words").value.trim();
  if (!asked || running) return;
  if (!models.length) await loadModels(); // the server may have come back
  if (!models.length) return;
  const unsound = document.querySelector("#settings :invalid");
  if (unsound) {
    $("settings").showPopover();
    unsound.reportValidity();
    return;
  }
  $("words").value = "";
  $("welcome").hidden = true;
  $("notice").hidden = true;
  const sides = $("compare").checked ? [0, 1] : [0];
  const answers = sides.map((side) => new Answer(models[$(`model-${side}`).selectedIndex], side));
  const turn = make("article", "turn");
  const row = make("div", answers.length > 1 ? "answers two" : "answers");
  row.append(...answers.map((answer) => answer.element));
  turn.append(make("p", "asked", asked), row);
  $("talk").append(turn);
  turn.scrollIntoView({ block: "end" });
  const mine = new AbortController();
  setRunning(mine);
  await Promise.all(answers.map((answer) => stream(answer, asked, mine.signal)));
  follow();
  if (running !== mine) return; // a new talk has begun meanwhile
  turns.push({ asked, answers: answers.map((answer) => answer.text) });
  setRunning(null);
}

function setRunning(controller) {
  running = controller;
  $("send").hidden = Boolean(controller);
  $("stop").hidden = !controller;
}

function newTalk() {
  running?.abort();
  setRunning(null);
  turns = [];
  $("talk").replaceChildren();
  $("notice").hidden = true;
  $("welcome").hidden = false;
  hideCard();
  $("words").focus();
}

// ---- settings, models ----

function restore() {
  $("key").value = sessionStorage.getItem("key") ?? "";
  for (const name of REMEMBERED) $(name).value = localStorage.getItem(name) ?? $(name).value;
}

async function loadModels() {
  try {
    models = (await (await call("v1/models")).json()).data;
    $("notice").hidden = true;
  } catch (error) {
    models = [];
    $("notice").textContent = error.message;
    $("notice").hidden = false;
    if (error.status === 401) {
      $("settings").showPopover();
      $("key").focus();
    }
  }
  for (const side of [0, 1]) {
    $(`model-${side}`).replaceChildren(...models.map((model) => new Option(model.id)));
    $(`model-${side}`).selectedIndex = Math.min(side, models.length - 1);
  }
  $("compare").disabled = models.length < 2;
  $("compare").parentElement.title = models.length < 2 ? "Serve two checkpoints to compare them" : "";
  welcome();
}

function welcome() {
  const { promise, starters } = WELCOME[models[$("model-0").selectedIndex]?.prompt_format ?? "dialogue"];
  $("promise").textContent = promise;
  const buttons = starters.map((words) => make("button", "", words));
  for (const button of buttons) {
    button.onclick = () => {
      $("words").value = button.textContent;
      ask();
    };
  }
  $("starters").replaceChildren(...(models.length ? buttons : []));
}

function wire() {
  $("ask").onsubmit = (event) => {
    event.preventDefault();
    ask();
  };
  $("words").onkeydown = (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      ask();
    } else if (event.key === "ArrowUp" && !$("words").value && turns.length) {
      event.preventDefault();
      $("words").value = turns.at(-1).asked;
    }
  };
  $("stop").onclick = () => running?.abort();
  $("new-talk").onclick = newTalk;
  $("model-0").onchange = welcome;
  $("compare").onchange = () => {
    document.querySelector(".models .side-1").hidden = !$("compare").checked;
  };
  $("tint").onchange = () => {
    $("talk").classList.toggle("tinted", $("tint").checked);
    $("scale").hidden = !$("tint").checked;
  };
  $("settings").onsubmit = (event) => {
    event.preventDefault();
    $("settings").hidePopover();
  };
  $("settings").onchange = ({ target }) => {
    if (target.id !== "key") return localStorage.setItem(target.id, target.value);
    sessionStorage.setItem("key", target.value);
    return loadModels();
  };
  for (const kind of ["pointerover", "focusin"]) {
    $("talk").addEventListener(kind, ({ target }) => target.tokens && showCard(target));
  }
  for (const kind of ["pointerout", "focusout"]) $("talk").addEventListener(kind, hideCard);
  $("talk").addEventListener("keydown", walk);
  document.querySelector("main").addEventListener("scroll", hideCard);
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || $("settings").matches(":popover-open")) return;
    hideCard();
    running?.abort();
  });
}

restore();
wire();
loadModels();
