// A ranking: groups of answers, the best first; those of one group are tied. Every function returns a new one.

const ranked = (ranking) => ranking.flat();

const rankOf = (ranking, id) => ranking.findIndex((group) => group.includes(id));

function without(ranking, id) {
  return ranking.map((group) => group.filter((other) => other !== id)).filter((group) => group.length);
}

// As a rank of its own before the group at `at` (of the ranking as it is now); at its length: the last.
function placeAt(ranking, id, at) {
  const groups = ranking.map((group) => group.filter((other) => other !== id));
  groups.splice(at, 0, [id]);
  return groups.filter((group) => group.length);
}

// Tied with the group at `at`.
function tieWith(ranking, id, at) {
  const groups = ranking.map((group, i) => {
    const others = group.filter((other) => other !== id);
    return i === at ? [...others, id] : others;
  });
  return groups.filter((group) => group.length);
}

// One step better (-1) or worse (+1): out of its tie first, then past the next rank. Unranked ones come in last.
function move(ranking, id, step) {
  const at = rankOf(ranking, id);
  if (at < 0) return placeAt(ranking, id, ranking.length);
  const alone = ranking[at].length === 1;
  if (step < 0) return placeAt(ranking, id, alone ? Math.max(0, at - 1) : at);
  return placeAt(ranking, id, Math.min(ranking.length, alone ? at + 2 : at + 1));
}

// Tied with those of the rank above; unranked ones join the last rank.
function tieAbove(ranking, id) {
  const at = rankOf(ranking, id);
  if (at === 0 || !ranking.length) return at === 0 ? ranking : [[id]];
  return tieWith(ranking, id, at < 0 ? ranking.length - 1 : at - 1);
}

// In words: "A > B = C", by the letters that the page gives the answers.
function inWords(ranking, nameOf) {
  return ranking.map((group) => group.map(nameOf).sort().join(" = ")).join(" > ");
}
