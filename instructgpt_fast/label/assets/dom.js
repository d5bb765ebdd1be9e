// Small helps for the document. Text of a model or of a person goes into the page as textContent only, so that nothing
// in it is ever markup.

const $ = (id) => document.getElementById(id);

function make(tag, className = "", text = "") {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.textContent = text;
  return element;
}

function button(className, text, press) {
  const element = make("button", className, text);
  element.type = "button";
  element.onclick = press;
  return element;
}

// Says what has just been done: seen for some seconds, and read aloud by a screen reader.
const SEEN = 5000; // milliseconds
let hiding = 0;

function tell(text) {
  $("told").textContent = text;
  $("told").classList.add("seen");
  clearTimeout(hiding);
  hiding = setTimeout(() => $("told").classList.remove("seen"), SEEN);
}

// What is wrong, until it is right again; "" when it is.
function complain(text) {
  $("notice").textContent = text;
  $("notice").hidden = !text;
}

// Do something that moves the page about, with this element staying where it is seen.
function holding(element, act) {
  const before = element.getBoundingClientRect().top;
  act();
  scrollBy({ top: element.getBoundingClientRect().top - before, behavior: "instant" });
}

const letterOf = (index) => String.fromCharCode(65 + index);

const plural = (count, one, many = `${one}s`) => `${count} ${count === 1 ? one : many}`;

const wait = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
