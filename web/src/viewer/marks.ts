// How a node looks: its shape tells how it ended, its lightness its score, so that neither needs colour to be read.

import { scoreOf, type Tree, type TraceNode } from "../trace/tree";

export interface ScoreScale {
  low: number;
  high: number;
}

/** Scores within [0, 1] are shown on [0, 1]; others from their least to their greatest. */
export function scaleOf(tree: Tree): ScoreScale {
  let low = 0;
  let high = 1;
  for (const node of tree.nodes) {
    const score = scoreOf(node);
    if (score === null) continue;
    low = Math.min(low, score);
    high = Math.max(high, score);
  }
  return { low, high };
}

/** Where a score lies on the scale, from 0 to 1; null without a score. */
export function level(node: TraceNode, scale: ScoreScale): number | null {
  const score = scoreOf(node);
  return score === null ? null : (score - scale.low) / (scale.high - scale.low || 1);
}

const STATUS = {
  open: "can go on",
  stop: "finished",
  length: "cut by a limit",
  abort: "cancelled",
  dropped: "dropped",
} as const;

/** A node in words, for lists and for those who listen. */
export function describe(node: TraceNode): string {
  const parts = node.kind === "root" ? [title(node)] : [title(node), STATUS[node.status], `${node.tokens} tokens`];
  const score = scoreOf(node);
  if (score !== null) parts.push(`score ${score.toFixed(3)}`);
  return parts.join(", ");
}

export function title(node: TraceNode): string {
  if (node.kind === "root") return node.model === null ? "problem" : `problem under ${visible(node.model)}`;
  if (node.kind === "asked") return `call ${node.id} (${visible(node.purse ?? "program")})`;
  return node.kind === "forced" ? `forced ${node.id}` : `node ${node.id}`;
}

/** The start of a text on one line, with what cannot be seen made visible. */
export function oneLine(text: string, length = 120): string {
  const flat = visible(text).replace(/\s+/gu, " ").trim();
  return flat.length > length ? `${flat.slice(0, length)}…` : flat;
}

// Controls, marks of direction, zero-width characters and lone surrogates: shown as their code points, so that a text can
// neither reorder nor hide what stands beside it.
const UNSEEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]|\p{Cs}/gu;

export function visible(text: string): string {
  return text.replace(UNSEEN, (mark) => `⟨U+${mark.codePointAt(0)!.toString(16).toUpperCase().padStart(4, "0")}⟩`);
}
