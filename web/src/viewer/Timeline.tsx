// What the batch held over time: one bar a branch from its first to its last engine step, and how many ran at each step.
// Traces without engine steps are shown over the run's events instead.

import { useMemo } from "preact/hooks";
import type { Tree } from "../trace/tree";

interface Bar {
  id: number;
  from: number;
  to: number;
  lane: number;
  dropped: boolean;
  best: boolean;
}

const WIDTH = 1000;
const LANE = 9;
const COUNTS = 90;
const LEFT = 46;

export function Timeline({ tree, version, selected, onSelect }: { tree: Tree; version: number; selected: number | null; onSelect: (id: number) => void }) {
  const { bars, from, to, lanes, bySteps } = useMemo(() => timelineOf(tree), [tree, version]);
  if (bars.length === 0) return <p class="faint">Nothing was drawn.</p>;
  const scale = (WIDTH - LEFT - 10) / Math.max(1, to - from + 1);
  const x = (at: number) => LEFT + (at - from) * scale;
  const counts = occupancy(bars, from, to);
  const most = Math.max(1, ...counts);
  const unit = bySteps ? "engine step" : "event of the run";
  const height = COUNTS + lanes * LANE + 30;
  const line = counts.map((count, i) => `${i === 0 ? "M" : "L"}${x(from + i)} ${COUNTS - (count / most) * (COUNTS - 20)}h${scale}`).join("");
  return (
    <figure class="timeline">
      <figcaption>
        Branches in the batch at each {unit}: {bars.length} branches, at most {most} at once
        {!bySteps && "; this trace does not say in which engine steps they ran"}
      </figcaption>
      <svg viewBox={`0 0 ${WIDTH} ${height}`} role="img" aria-label={`Branches in the batch over time, at most ${most} at once`}>
        <text x={LEFT - 6} y={24} class="axis" text-anchor="end">{most}</text>
        <text x={LEFT - 6} y={COUNTS} class="axis" text-anchor="end">0</text>
        <path d={`${line}`} class="occupancy" />
        <line x1={LEFT} x2={WIDTH - 10} y1={COUNTS} y2={COUNTS} class="axis-line" />
        {bars.map((bar) => (
          <rect
            key={bar.id}
            x={x(bar.from)}
            y={COUNTS + 8 + bar.lane * LANE}
            width={Math.max(1.5, (bar.to - bar.from + 1) * scale - 0.5)}
            height={LANE - 2}
            class={`bar ${bar.dropped ? "dropped" : ""} ${bar.best ? "best" : ""} ${bar.id === selected ? "selected" : ""}`}
            onClick={() => onSelect(bar.id)}
          >
            <title>{`node ${bar.id}, ${unit} ${bar.from} to ${bar.to}`}</title>
          </rect>
        ))}
        <text x={LEFT} y={height - 6} class="axis">{from}</text>
        <text x={WIDTH - 10} y={height - 6} class="axis" text-anchor="end">{`${to} (${unit})`}</text>
      </svg>
    </figure>
  );
}

function timelineOf(tree: Tree): { bars: Bar[]; from: number; to: number; lanes: number; bySteps: boolean } {
  const drawn = tree.nodes.filter((node) => node.kind === "drawn" || node.kind === "asked");
  const bySteps = drawn.some((node) => node.steps !== null);
  const best = tree.bestPath();
  const spans = drawn
    .filter((node) => !bySteps || node.steps !== null)
    .map((node) => {
      const from = bySteps ? node.steps!.first : node.born;
      const childrenBorn = node.children.map((child) => tree.node(child).born);
      const to = bySteps ? node.steps!.last : Math.max(from, node.died ?? Math.max(from, ...childrenBorn));
      return { id: node.id, from, to, dropped: node.status === "dropped", best: best.has(node.id) };
    })
    .sort((a, b) => a.from - b.from || a.id - b.id);
  const ends: number[] = [];
  const bars = spans.map((span) => {
    let lane = ends.findIndex((end) => end < span.from);
    if (lane < 0) lane = ends.length;
    ends[lane] = span.to;
    return { ...span, lane };
  });
  const from = bars.reduce((least, bar) => Math.min(least, bar.from), Infinity);
  const to = bars.reduce((most, bar) => Math.max(most, bar.to), 0);
  return { bars, from, to, lanes: ends.length, bySteps };
}

function occupancy(bars: readonly Bar[], from: number, to: number): number[] {
  const changes = new Array<number>(to - from + 2).fill(0);
  for (const bar of bars) {
    changes[bar.from - from]! += 1;
    changes[bar.to - from + 1]! -= 1;
  }
  let running = 0;
  return changes.slice(0, -1).map((change) => (running += change));
}
