// Which nodes are shown: those that match what is searched for, and the way to them.

import { scoreOf, type Tree, type TraceNode } from "./tree";

export const FILTERS = {
  all: "all nodes",
  kept: "not dropped",
  dropped: "dropped",
  finished: "finished answers",
  best: "way to the answer",
} as const;
export type Filter = keyof typeof FILTERS;

export interface Query {
  text: string;
  filter: Filter;
  minScore: number | null;
}

export const EVERYTHING: Query = { text: "", filter: "all", minScore: null };

/** Numbers of the nodes that match, in launch order. */
export function matches(tree: Tree, query: Query): number[] {
  const best = tree.bestPath();
  const wanted = query.text.toLowerCase();
  return tree.nodes.filter((node) => fits(node, query, wanted, best)).map((node) => node.id);
}

/** The nodes to show for some matches: they and all above them. */
export function withAncestors(tree: Tree, found: readonly number[]): Set<number> {
  const shown = new Set<number>();
  for (const id of found)
    for (let here: number | null = id; here !== null && !shown.has(here); here = tree.node(here).parent) shown.add(here);
  return shown;
}

function fits(node: TraceNode, query: Query, wanted: string, best: ReadonlySet<number>): boolean {
  const score = scoreOf(node);
  if (query.minScore !== null && (score === null || score < query.minScore)) return false;
  if (wanted !== "" && !node.text.toLowerCase().includes(wanted) && String(node.id) !== wanted) return false;
  switch (query.filter) {
    case "all":
      return true;
    case "kept":
      return node.status !== "dropped";
    case "dropped":
      return node.status === "dropped";
    case "finished":
      return node.status === "stop";
    case "best":
      return best.has(node.id);
  }
}
