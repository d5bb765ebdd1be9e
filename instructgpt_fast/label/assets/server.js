// The server's routes. A failure carries `status` and `body` where the server answered, and neither where it did not.

const PATIENCE = 15_000; // milliseconds
const KEEPALIVE_AT_MOST = 20_000; // characters; browsers let 64 KiB outlive a page

async function call(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { signal: AbortSignal.timeout(PATIENCE), cache: "no-store", ...options });
  } catch {
    throw new Error("The server cannot be reached.");
  }
  const body = await response.json().catch(() => null);
  if (response.ok && body !== null) return body;
  const failure = new Error(body?.error ?? `The server answered with status ${response.status}.`);
  failure.status = response.status;
  failure.body = body;
  throw failure;
}

function sending(method, value) {
  const body = JSON.stringify(value);
  // What is on its way when the page is left still arrives.
  return { method, body, headers: { "Content-Type": "application/json" }, keepalive: body.length < KEEPALIVE_AT_MOST };
}

// Whether another try may do: nobody answered, or the server is in trouble of its own.
const mayPass = (error) => !error.status || error.status >= 500 || error.status === 408 || error.status === 429;

const getForm = () => call("api/form");
const signInAs = (name) => call("api/labelers", sending("POST", { name }));
const getNext = (labeler, kind) => call(`api/task?labeler=${encodeURIComponent(labeler)}&kind=${kind}`);
const getOwn = (labeler) => call(`api/tasks?labeler=${encodeURIComponent(labeler)}`);
const getTask = (labeler, id) =>
  call(`api/tasks/${encodeURIComponent(id)}?labeler=${encodeURIComponent(labeler)}`);
const putTask = (id, label) => call(`api/tasks/${encodeURIComponent(id)}`, sending("PUT", label));
