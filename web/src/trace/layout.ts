// Places for the nodes of a forest: depth from left to right, leaves from top to bottom, a parent midway of its children.

import type { Tree } from "./tree";

export interface Layout {
  /** Column of each node: its depth. */
  column: Float32Array;
  /** Row of each node, in leaves. */
  row: Float32Array;
  columns: number;
  rows: number;
}

/** Linear in the number of nodes; without recursion, for a tree may be thousands deep. */
export function layOut(tree: Tree, shown: (id: number) => boolean): Layout {
  const count = tree.nodes.length;
  const column = new Float32Array(count).fill(-1);
  const row = new Float32Array(count).fill(-1);
  let rows = 0;
  let columns = 0;
  for (const root of tree.roots()) {
    if (!shown(root)) continue;
    for (const id of postOrder(tree, root, shown)) {
      const node = tree.node(id);
      column[id] = node.depth;
      columns = Math.max(columns, node.depth + 1);
      const children = node.children.filter(shown);
      const first = children[0];
      const last = children[children.length - 1];
      row[id] = first === undefined || last === undefined ? rows++ : (row[first]! + row[last]!) / 2;
    }
  }
  return { column, row, columns, rows };
}

function postOrder(tree: Tree, root: number, shown: (id: number) => boolean): number[] {
  const order: number[] = [];
  const stack = [root];
  while (stack.length > 0) {
    const id = stack.pop()!;
    order.push(id);
    for (const child of tree.node(id).children) if (shown(child)) stack.push(child);
  }
  return order.reverse();
}

/** Nodes in the order of an outline (parents first, children in launch order), with those below folded ones left out. */
export function outline(tree: Tree, shown: (id: number) => boolean, folded: ReadonlySet<number>): number[] {
  const order: number[] = [];
  const stack = tree.roots().filter(shown).reverse();
  while (stack.length > 0) {
    const id = stack.pop()!;
    order.push(id);
    if (folded.has(id)) continue;
    const children = tree.node(id).children;
    for (let i = children.length - 1; i >= 0; i--) if (shown(children[i]!)) stack.push(children[i]!);
  }
  return order;
}
