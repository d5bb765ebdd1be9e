// The server's interface: requests out, events in, both interfaces of the server in one form.

const ALTERNATIVES = 5; // the likeliest tokens told beside the drawn one

function headers() {
  const key = $("key").value.trim();
  return { "Content-Type": "application/json", ...(key && { Authorization: `Bearer ${key}` }) };
}

async function call(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { headers: headers(), ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server cannot be reached. Is it still running?");
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => null);
  const failure = new Error(body?.error?.message ?? `The server answered with status ${response.status}.`);
  failure.status = response.status;
  throw failure;
}

// Server-sent events, of which this server uses one field: each event is one line "data: JSON" and an empty line.
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + value).split(/\r?\n/);
    rest = lines.pop();
    for (const line of lines) {
      if (line === "data: [DONE]") return;
      if (line.startsWith("data: ")) yield JSON.parse(line.slice(6));
    }
  }
}

// What the model of one side was told and answered so far; a turn without an answer is left out, as roles must alternate.
function history(side, asked) {
  const system = $("system").value.trim();
  const messages = system ? [{ role: "system", content: system }] : [];
  for (const turn of turns) {
    const content = turn.answers[side] ?? turn.answers[0];
    if (content) messages.push({ role: "user", content: turn.asked }, { role: "assistant", content });
  }
  return [...messages, { role: "user", content: asked }];
}

function request(model, side, asked) {
  const body = { model: model.id, stream: true };
  for (const name of ["temperature", "top_p", "max_tokens", "seed"]) {
    if ($(name).value !== "") body[name] = Number($(name).value);
  }
  if (model.prompt_format === "dialogue") {
    Object.assign(body, { messages: history(side, asked), logprobs: true, top_logprobs: ALTERNATIVES });
    return ["v1/chat/completions", body];
  }
  return ["v1/completions", { ...body, prompt: asked, logprobs: ALTERNATIVES }];
}

// One form for the events of both interfaces: {text, finish, tokens: [{name, bytes, logprob, alternatives}]}.
function parsed(event) {
  if (event.error) throw new Error(event.error.message);
  const choice = event.choices?.[0];
  if (!choice) return { text: "", finish: null, tokens: [] };
  const told = choice.logprobs;
  let tokens = [];
  if (told?.content) {
    tokens = told.content.map(({ token, bytes, logprob, top_logprobs }) => ({
      name: token, logprob, bytes: new Uint8Array(bytes ?? []),
      alternatives: top_logprobs.map((other) => ({ name: other.token, logprob: other.logprob })),
    }));
  } else if (told?.tokens) {
    tokens = told.tokens.map((name, i) => ({
      name, logprob: told.token_logprobs[i], bytes: bytesOf(name),
      alternatives: ranked(told.top_logprobs?.[i] ?? {}),
    }));
  }
  return { text: choice.delta ? choice.delta.content ?? "" : choice.text, finish: choice.finish_reason, tokens };
}

// An object's order is not its sender's: numbers come first.
function ranked(logprobs) {
  const rows = Object.entries(logprobs).map(([name, logprob]) => ({ name, logprob }));
  return rows.sort((one, other) => other.logprob - one.logprob);
}

// A token that is a part of a character has no text of its own and is named by its bytes: "bytes:\xf0\x9f".
function bytesOf(name) {
  if (!name.startsWith("bytes:")) return new TextEncoder().encode(name);
  return new Uint8Array(name.slice(6).split("\\x").slice(1).map((digits) => parseInt(digits, 16)));
}
