// The card that tells how likely a token was, under the pointer or the focus.

const percent = (logprob) => {
  const p = 100 * Math.exp(logprob);
  return p >= 10 ? `${p.toFixed(0)} %` : p >= 0.01 ? `${Number(p.toPrecision(2))} %` : "under 0.01 %";
};

// Spaces and line ends are seen; a token of nothing else would look like no token.
const visible = (name) => name.replaceAll(" ", "·").replaceAll("\n", "⏎").replaceAll("\t", "⇥");

function remark(token) {
  const better = token.alternatives.filter((other) => other.logprob > token.logprob).length;
  const p = Math.exp(token.logprob);
  if (better >= ALTERNATIVES) return p < 0.001 ? "Nobody saw this coming." : "A long shot.";
  if (better > 0) return p > 0.2 ? "A fair choice." : `Choice number ${better + 1}.`;
  if (p > 0.95) return "Never in doubt.";
  return p > 0.5 ? "The clear favourite." : "The favourite, if only just.";
}

function describe(token) {
  const drawn = make("p", "drawn");
  drawn.append(make("span", "", visible(token.name)), make("span", "probability", percent(token.logprob)));
  const rows = token.alternatives.map((other) => {
    const row = make("div", other.name === token.name ? "alternative taken" : "alternative");
    row.style.setProperty("--share", Math.exp(other.logprob).toFixed(4));
    row.append(make("span", "", visible(other.name)), make("span", "", percent(other.logprob)));
    return row;
  });
  return [drawn, make("p", "remark", remark(token)), ...rows];
}

function showCard(span) {
  const card = $("card");
  const parts = span.tokens.map(describe);
  card.replaceChildren(...parts.flatMap((part, i) => (i ? [make("hr"), ...part] : part)));
  card.hidden = false;
  const place = span.getClientRects()[0];
  const left = Math.max(8, Math.min(place.left, innerWidth - card.offsetWidth - 8));
  const below = place.bottom + 6;
  const above = place.top - card.offsetHeight - 6;
  card.style.left = `${left}px`;
  card.style.top = `${below + card.offsetHeight < innerHeight || above < 0 ? below : above}px`;
  span.setAttribute("aria-describedby", "card");
}

function hideCard() {
  document.querySelector("[aria-describedby=card]")?.removeAttribute("aria-describedby");
  $("card").hidden = true;
}

function walk(event) {
  const span = event.target.closest(".token");
  if (!span) return;
  const all = [...span.parentElement.querySelectorAll(".token")];
  const at = all.indexOf(span);
  const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: all.length - 1 }[event.key];
  if (to === undefined || !all[to]) return;
  event.preventDefault();
  span.tabIndex = -1;
  all[to].tabIndex = 0;
  all[to].focus();
}
