// The tree as a list in words: what a keyboard and a screen reader walk through. Only the rows in view exist.

import { useEffect, useId, useMemo, useRef, useState } from "preact/hooks";
import { outline } from "../trace/layout";
import { scoreOf, type Tree } from "../trace/tree";
import { describe, oneLine, title } from "./marks";

interface Props {
  tree: Tree;
  version: number;
  shown: ReadonlySet<number> | null;
  selected: number | null;
  onSelect: (id: number) => void;
}

const ROW = 26;
const SPARE = 10;
const INDENT = 14;
const MARK = { open: "○", stop: "■", length: "▶", abort: "◌", dropped: "✕" } as const;

export function Outline({ tree, version, shown, selected, onSelect }: Props) {
  const name = useId();
  const box = useRef<HTMLDivElement>(null);
  const [folded, setFolded] = useState<ReadonlySet<number>>(new Set());
  const [top, setTop] = useState(0);
  const [height, setHeight] = useState(600);
  const order = useMemo(() => outline(tree, (id) => shown === null || shown.has(id), folded), [tree, version, shown, folded]);
  const place = useMemo(() => new Map(order.map((id, i) => [id, i])), [order]);
  const best = useMemo(() => tree.bestPath(), [tree, version]);
  const active = selected !== null && place.has(selected) ? selected : (order[0] ?? null);

  useEffect(() => {
    const element = box.current!;
    const watch = new ResizeObserver(() => setHeight(element.clientHeight));
    watch.observe(element);
    return () => watch.disconnect();
  }, []);

  useEffect(() => {
    const at = selected === null ? undefined : place.get(selected);
    const element = box.current;
    if (at === undefined || element === null) return;
    if (at * ROW < element.scrollTop) element.scrollTop = at * ROW;
    else if ((at + 1) * ROW > element.scrollTop + element.clientHeight) element.scrollTop = (at + 1) * ROW - element.clientHeight;
  }, [selected, order]);

  const fold = (id: number, closed: boolean) => {
    const next = new Set(folded);
    if (closed) next.add(id);
    else next.delete(id);
    setFolded(next);
  };

  const onKey = (event: KeyboardEvent) => {
    if (active === null) return;
    const at = place.get(active)!;
    const node = tree.node(active);
    const to = (i: number) => onSelect(order[Math.max(0, Math.min(order.length - 1, i))]!);
    const page = Math.max(1, Math.floor(height / ROW) - 1);
    const keys: Record<string, () => void> = {
      ArrowDown: () => to(at + 1),
      ArrowUp: () => to(at - 1),
      PageDown: () => to(at + page),
      PageUp: () => to(at - page),
      Home: () => to(0),
      End: () => to(order.length - 1),
      ArrowRight: () => (folded.has(active) ? fold(active, false) : node.children.length > 0 && to(at + 1)),
      ArrowLeft: () =>
        node.children.length > 0 && !folded.has(active) ? fold(active, true) : node.parent !== null && onSelect(node.parent),
    };
    const run = keys[event.key];
    if (run === undefined) return;
    event.preventDefault();
    run();
  };

  const first = Math.max(0, Math.floor(top / ROW) - SPARE);
  const rows = order.slice(first, first + Math.ceil(height / ROW) + 2 * SPARE);
  return (
    <div
      ref={box}
      class="outline"
      role="tree"
      aria-label="Nodes of the search tree"
      tabIndex={0}
      aria-activedescendant={active === null ? undefined : `${name}-${active}`}
      onKeyDown={onKey}
      onScroll={(event) => setTop(event.currentTarget.scrollTop)}
    >
      <div class="outline-space" role="presentation" style={{ height: `${order.length * ROW}px` }}>
        {rows.map((id, i) => {
          const node = tree.node(id);
          const score = scoreOf(node);
          return (
            <div
              key={id}
              id={`${name}-${id}`}
              role="treeitem"
              aria-level={node.depth + 1}
              aria-selected={id === selected}
              aria-expanded={node.children.length > 0 ? !folded.has(id) : undefined}
              aria-label={`${describe(node)}. ${oneLine(node.text)}`}
              class={`outline-row ${node.status} ${best.has(id) ? "best" : ""} ${id === selected ? "selected" : ""}`}
              style={{ top: `${(first + i) * ROW}px`, paddingLeft: `${8 + Math.min(node.depth, 40) * INDENT}px` }}
              onClick={() => onSelect(id)}
            >
              <span
                class="twisty"
                onClick={(event) => {
                  event.stopPropagation();
                  if (node.children.length > 0) fold(id, !folded.has(id));
                }}
              >
                {node.children.length > 0 ? (folded.has(id) ? "▸" : "▾") : ""}
              </span>
              <span class="mark">{MARK[node.status]}</span>
              <span class="number">{node.kind === "root" ? title(node) : id}</span>
              {score !== null && <span class="score">{score.toFixed(3)}</span>}
              <bdi class="row-text">{oneLine(node.text)}</bdi>
              <span class="tokens">{node.tokens}</span>
            </div>
          );
        })}
      </div>
    </div>
  );
}
