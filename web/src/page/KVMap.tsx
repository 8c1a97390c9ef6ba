// The map of the KV pool: one cell a block, by whether it is free, cached, held by one sequence or shared by several.

import { useEffect, useRef, useState } from "preact/hooks";
import { ApiFailure, call } from "../api/client";
import { themeOf } from "../viewer/paint";

interface KVState {
  block_size: number;
  /** A letter a block: f free, c cached, h held by one sequence, s shared by several. */
  blocks: string;
}

const EVERY_MS = 2000;
const CELL = 7;
const WORDS = { f: "free", c: "cached, free to reuse", h: "held by one sequence", s: "shared by several" } as const;

export function KVMap({ model }: { model: string }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const [state, setState] = useState<KVState | null>(null);
  const [error, setError] = useState<string | null>(null);

  useEffect(() => {
    let alive = true;
    const read = async () => {
      try {
        const found = (await (await call(`v1/kv/${model.split("/").map(encodeURIComponent).join("/")}`)).json()) as KVState;
        if (alive) [setState(found), setError(null)];
      } catch (failure) {
        if (alive) setError(failure instanceof ApiFailure ? failure.message : String(failure));
      }
    };
    if (model !== "") void read();
    const timer = setInterval(() => model !== "" && void read(), EVERY_MS);
    return () => {
      alive = false;
      clearInterval(timer);
    };
  }, [model]);

  useEffect(() => {
    if (canvas.current !== null && state !== null) paintMap(canvas.current, state.blocks);
  }, [state]);

  if (error !== null) return <p class="faint">No map of the KV memory: {error}</p>;
  if (state === null) return null;
  const counts = Object.keys(WORDS).map((letter) => [letter as keyof typeof WORDS, state.blocks.split(letter).length - 1] as const);
  return (
    <figure class="kv-map">
      <figcaption>
        KV memory, {state.blocks.length.toLocaleString("en")} blocks of {state.block_size} tokens:{" "}
        {counts.map(([letter, count]) => `${count.toLocaleString("en")} ${WORDS[letter]}`).join("; ")}
      </figcaption>
      <canvas ref={canvas} role="img" aria-label="Map of the KV memory, one cell a block; the caption has the counts" />
    </figure>
  );
}

function paintMap(canvas: HTMLCanvasElement, blocks: string): void {
  const columns = Math.max(1, Math.floor(canvas.clientWidth / CELL));
  const rows = Math.ceil(blocks.length / columns);
  canvas.width = columns * CELL;
  canvas.height = rows * CELL;
  const context = canvas.getContext("2d")!;
  const theme = themeOf(canvas);
  const fill = { f: null, c: `rgb(${theme.low.join(" ")})`, h: `rgb(${theme.high.join(" ")})`, s: theme.accent };
  for (let i = 0; i < blocks.length; i++) {
    const [x, y] = [(i % columns) * CELL, Math.floor(i / columns) * CELL];
    const letter = blocks[i] as keyof typeof WORDS;
    const colour = fill[letter];
    if (colour === null) {
      context.globalAlpha = 0.3;
      context.strokeStyle = theme.line;
      context.strokeRect(x + 0.5, y + 0.5, CELL - 2, CELL - 2);
      context.globalAlpha = 1;
      continue;
    }
    context.fillStyle = colour;
    context.fillRect(x, y, CELL - 1, CELL - 1);
    if (letter === "s") {
      context.fillStyle = theme.surface; // a dot tells shared from held without colour
      context.fillRect(x + 2, y + 2, 2, 2);
    }
  }
}
