// Server-sent events out of a response's body, one `data:` at a time.

export async function* events(body: ReadableStream<Uint8Array<ArrayBuffer>>): AsyncGenerator<string> {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      rest += value;
      const blocks = rest.split(/\r?\n\r?\n/u);
      rest = blocks.pop()!;
      for (const block of blocks) {
        const data = block
          .split(/\r?\n/u)
          .filter((line) => line.startsWith("data:"))
          .map((line) => line.slice(5).replace(/^ /u, ""))
          .join("\n");
        if (data !== "") yield data;
      }
    }
  } finally {
    await reader.cancel().catch(() => undefined); // the server hears at once that nobody reads any more
  }
}
