// The search tree that a run's events describe. It grows with each event, so that a live run and a file are shown alike.

import type { Ledger, TraceEvent } from "./events";

export type Kind = "root" | "drawn" | "forced" | "asked";
export type Status = "open" | "stop" | "length" | "abort" | "dropped";

export interface TraceNode {
  id: number;
  parent: number | null;
  kind: Kind;
  depth: number;
  text: string;
  tokens: number;
  tokenIds: number[];
  logprob: number | null;
  scores: Map<string, number>;
  status: Status;
  children: number[];
  /** Place of the event that made it. */
  born: number;
  /** Place of the event that dropped it. */
  died: number | null;
  probes: { text: string; tokens: number }[];
  model: string | null;
  purse: string | null;
  /** Steps of the engine in which it was in the batch. */
  steps: { first: number; last: number } | null;
}

export class Tree {
  readonly nodes: TraceNode[] = [newNode(0, null, "root", 0, 0)];
  readonly events: TraceEvent[] = [];
  readonly notes: string[] = [];
  strategy = "";
  prompt = "";
  seed = 0;
  answer: string | null = null;
  candidates = 0;
  reason: string | null = null;
  ledger: Ledger | null = null;
  totalTokens = 0;
  best: number | null = null;

  static of(events: Iterable<TraceEvent>): Tree {
    const tree = new Tree();
    for (const event of events) tree.add(event);
    return tree;
  }

  node(id: number): TraceNode {
    const found = this.nodes[id];
    if (found === undefined) throw new Error(`the trace has no node ${id}`);
    return found;
  }

  /** Trees of their own: the problem's, those under other models, answers of a program's calls. */
  roots(): number[] {
    return this.nodes.filter((node) => node.parent === null).map((node) => node.id);
  }

  /** The node and those above it, from the root down. */
  path(id: number): TraceNode[] {
    const way: TraceNode[] = [];
    for (let here: number | null = id; here !== null; here = this.node(here).parent) way.push(this.node(here));
    return way.reverse();
  }

  /** Nodes on the way to the chosen answer. */
  bestPath(): Set<number> {
    return new Set(this.best === null ? [] : this.path(this.best).map((node) => node.id));
  }

  add(event: TraceEvent): void {
    const place = this.events.push(event) - 1;
    switch (event.type) {
      case "Started":
        this.strategy = event.strategy;
        this.seed = event.seed;
        this.prompt = event.prompt || event.problem;
        break;
      case "Rooted":
        this.nodes.push({ ...newNode(event.node, null, "root", 0, place), model: event.model });
        break;
      case "Grown":
      case "Forced":
        this.grow(event, place);
        break;
      case "Asked":
        this.nodes.push({
          ...newNode(event.node, null, "asked", 0, place),
          text: event.text,
          tokens: event.num_tokens,
          purse: event.purse,
          status: "stop",
        });
        break;
      case "Probed":
        this.node(event.node).probes.push({ text: event.text, tokens: event.num_tokens });
        break;
      case "Scored":
        this.node(event.node).scores.set(event.scorer, event.value);
        break;
      case "Dropped":
        for (const id of event.nodes) Object.assign(this.node(id), { status: "dropped", died: place });
        break;
      case "Cut":
        for (const id of event.nodes) this.node(id).status = "length";
        break;
      case "Noted":
        this.notes.push(event.text);
        break;
      case "Reported":
        this.best = event.best;
        this.answer = event.answer;
        this.candidates = event.num_candidates;
        break;
      case "Ran":
        this.node(event.node).steps = { first: event.first_step, last: event.last_step };
        break;
      case "Stopped":
        this.reason = event.reason;
        this.ledger = event.ledger;
        this.totalTokens = event.total_tokens;
        break;
      case "Resampled":
        break;
    }
  }

  private grow(event: Extract<TraceEvent, { type: "Grown" | "Forced" }>, place: number): void {
    const parent = this.node(event.parent);
    const drawn = event.type === "Grown";
    const node = newNode(event.node, parent.id, drawn ? "drawn" : "forced", parent.depth + 1, place);
    node.text = event.text;
    node.tokens = event.num_tokens;
    node.tokenIds = event.token_ids;
    if (drawn) {
      node.logprob = event.logprob;
      node.status = (event.finish_reason as Status | null) ?? "open";
    }
    this.nodes.push(node);
    parent.children.push(node.id);
  }
}

/** The score that stands for a node: its latest. */
export function scoreOf(node: TraceNode): number | null {
  let last: number | null = null;
  for (const value of node.scores.values()) last = value;
  return last;
}

function newNode(id: number, parent: number | null, kind: Kind, depth: number, born: number): TraceNode {
  return {
    id,
    parent,
    kind,
    depth,
    text: "",
    tokens: 0,
    tokenIds: [],
    logprob: null,
    scores: new Map(),
    status: "open",
    children: [],
    born,
    died: null,
    probes: [],
    model: null,
    purse: null,
    steps: null,
  };
}
