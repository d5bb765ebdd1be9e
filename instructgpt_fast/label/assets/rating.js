// The form for the chosen answer, made from what the server says it asks: radios, each with a key beside it.

const FIELD_KEYS = "jklmnopqrst"; // letters without another meaning; see keys.js

function radio(name, value, text, described) {
  const label = make("label", "choice");
  const input = make("input");
  Object.assign(input, { type: "radio", name, value });
  if (described) input.setAttribute("aria-describedby", described);
  label.append(input, make("span", "", text));
  return label;
}

function makeRating() {
  const { low, high, question, low_means, high_means } = form.overall;
  const overall = make("fieldset", "overall");
  const scale = make("div", "scale");
  for (let value = low; value <= high; value++) {
    const end = { [low]: low_means, [high]: high_means }[value];
    const choice = radio("overall", value, value);
    if (end) choice.firstChild.setAttribute("aria-label", `${value}, ${end}`);
    scale.append(choice);
  }
  const ends = make("div", "ends faint");
  ends.setAttribute("aria-hidden", "true");
  ends.append(make("span", "", low_means), make("span", "", high_means));
  overall.append(make("legend", "", question), scale, ends);
  const fields = form.fields.map(({ name, question: asked }, index) => {
    const field = make("fieldset", "field");
    const legend = make("legend");
    const key = FIELD_KEYS[index];
    if (key) legend.append(make("kbd", "", key));
    legend.append(make("span", "", asked));
    const choices = make("div", "choices");
    choices.append(radio(`field-${name}`, "yes", "Yes"), radio(`field-${name}`, "no", "No"));
    field.append(legend, choices);
    return field;
  });
  $("fields").replaceChildren(overall, ...fields);
  $("fields").onchange = ({ target }) => {
    if (target.name === "overall") setOverall(Number(target.value));
    else setField(target.name.slice("field-".length), target.value === "yes");
  };
  $("rest-no").append("No to all open questions ", make("kbd", "", "x"));
  $("rest-no").onclick = restNo;
}

function showRating() {
  const { id } = answerAt(chosen);
  const { overall, fields } = ratingOf(id);
  $("rating-title").replaceChildren("Answer ", make("span", "letter", letterOf(chosen)));
  for (const input of $("fields").querySelectorAll("input")) {
    const value = input.name === "overall" ? overall : fields[input.name.slice("field-".length)];
    input.checked = input.name === "overall" ? Number(input.value) === value : value === (input.value === "yes");
  }
  $("rest-no").disabled = !openFields(id).length;
}

function setOverall(value) {
  const { id } = answerAt(chosen);
  changed((now) => (now.ratings[id].overall = value),
    value === null ? `${letterOf(chosen)}: overall taken back` : `${letterOf(chosen)}: ${value} of ${form.overall.high}`);
}

function setField(name, value) {
  const { id } = answerAt(chosen);
  const { question } = form.fields.find((field) => field.name === name);
  const said = { true: "yes", false: "no", null: "taken back" }[value];
  changed((now) => (now.ratings[id].fields[name] = value), `${letterOf(chosen)}: ${question} ${said}`);
}

// Yes, no, open, and again.
function turnField(index) {
  const { name } = form.fields[index];
  const value = ratingOf(answerAt(chosen).id).fields[name];
  setField(name, value === null ? true : value ? false : null);
}

function restNo() {
  const { id } = answerAt(chosen);
  const open = openFields(id);
  changed((now) => open.forEach(({ name }) => (now.ratings[id].fields[name] = false)),
    `${letterOf(chosen)}: no to ${plural(open.length, "question")}`);
}
