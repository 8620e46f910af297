// Calls to the service, and its problems as errors with a message for a person.

let key = sessionStorage.getItem("api-key") || "";

export function useKey(value) {
  key = value;
  sessionStorage.setItem("api-key", value);
}

export class Problem extends Error {
  constructor(status, title, detail) {
    super(detail ? `${title}: ${detail}` : title);
    this.status = status;
  }
}

export async function call(path, options = {}) {
  const headers = { ...(options.headers || {}), ...(key ? { authorization: `Bearer ${key}` } : {}) };
  let answer;
  try {
    answer = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, "The service does not answer", "check the connection and try again");
  }
  if (answer.ok) return answer;
  const problem = await answer.json().catch(() => ({}));
  const wait = answer.headers.get("retry-after");
  const hint = wait ? ` (in ${wait} s)` : "";
  throw new Problem(answer.status, problem.title || `Error ${answer.status}`, (problem.detail || "") + hint);
}

// The lines of a stream of JSON objects, as they arrive.
export async function* lines(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    let part;
    try {
      part = await reader.read();
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Problem(0, "The connection broke", "the map was not finished; try again");
    }
    if (part.done) return;
    const found = (rest + part.value).split("\n");
    rest = found.pop();
    for (const line of found) {
      const event = JSON.parse(line);
      if (event.type === "problem") throw new Problem(event.status, event.title, event.detail);
      yield event;
    }
  }
}

export function asBlob(base64, type) {
  return new Blob([Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0))], { type });
}
