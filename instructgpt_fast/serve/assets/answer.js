// An answer as it grows, token by token.

const SURPRISED = 6; // nats: a token as unlikely as 1 in 400 gets the full colour

class Answer {
  constructor(model, side) {
    this.model = model;
    this.side = side;
    this.element = make("section", `answer side-${side}`);
    this.body = make("div", "text");
    const name = make("h3", "", model.id);
    if (model.prompt_format === "raw") name.append(make("small", "", "continues this message alone"));
    this.element.append(name, this.body);
    this.element.setAttribute("aria-busy", "true");
    this.text = "";
    this.unshown = ""; // text that no token was found for yet
    this.waiting = []; // tokens whose text has not come yet: the server holds it back where a stop string may begin
    this.silent = []; // tokens without text of their own: parts of a character, which the last of them shows
    this.count = 0;
    this.logprobs = 0;
    this.decoder = new TextDecoder();
    this.began = performance.now();
  }

  push({ text, tokens }) {
    this.text += text;
    this.unshown += text;
    for (const token of tokens) {
      this.count += 1;
      this.logprobs += token.logprob;
      this.waiting.push({ ...token, piece: this.decoder.decode(token.bytes, { stream: true }) });
    }
    while (this.waiting.length) {
      const { piece } = this.waiting[0];
      if (piece && this.unshown.length < piece.length && piece.startsWith(this.unshown)) return;
      const group = [...this.silent, this.waiting.shift()];
      const shows = piece && this.unshown.startsWith(piece);
      this.silent = shows ? [] : group;
      if (shows) this.show(piece, group);
    }
    if (!this.silent.length) this.show(this.unshown, []);
  }

  show(text, tokens) {
    if (!text) return;
    this.append(text, tokens);
    this.unshown = this.unshown.slice(text.length);
  }

  append(text, tokens) {
    const span = make("span", tokens.length ? "token" : "", text);
    if (tokens.length) {
      span.tokens = tokens;
      span.tabIndex = this.body.querySelector(".token") ? -1 : 0; // one stop of the Tab key; arrows do the rest
      const nats = -tokens.reduce((sum, token) => sum + token.logprob, 0);
      span.style.setProperty("--surprised", Math.min(1, nats / SURPRISED).toFixed(3));
    }
    this.body.append(span);
    return span;
  }

  // chosen: the model ended it. That was a token too, and can be asked how likely it was to end here.
  end(remark, chosen) {
    const left = [...this.silent, ...this.waiting];
    if (this.unshown) this.show(this.unshown, left);
    else if (chosen && left.length) this.append("", left).classList.add("end");
    this.element.setAttribute("aria-busy", "false");
    const notes = remark ? [remark] : [];
    if (this.count) {
      const seconds = (performance.now() - this.began) / 1000;
      const perplexity = Math.exp(-this.logprobs / this.count);
      notes.unshift(
        `${this.count} token${this.count === 1 ? "" : "s"}`,
        `${(this.count / seconds).toFixed(0)} a second`,
        `perplexity ${perplexity.toFixed(1)}`,
      );
    }
    if (notes.length) this.element.append(make("p", "told", notes.join(" · ")));
  }

  fail(message) {
    this.element.append(make("p", "error", message));
  }
}

async function stream(answer, asked, signal) {
  const [path, body] = request(answer.model, answer.side, asked);
  let finish = null;
  let remark = "";
  try {
    const response = await call(path, { method: "POST", body: JSON.stringify(body), signal });
    for await (const event of events(response)) {
      const step = parsed(event);
      answer.push(step);
      finish ??= step.finish;
      follow();
    }
    if (finish === "length") remark = "cut off at the most tokens";
    else if (!finish) remark = "the server ended in the middle";
    else if (!answer.text) remark = "chose to say nothing";
  } catch (error) {
    if (signal.aborted) remark = "stopped";
    else answer.fail(error.message);
  }
  answer.end(remark, finish === "stop");
}
