// The picture of a tree on a canvas: only what is in view is drawn, so that ten thousand nodes stay smooth.

import type { Layout } from "../trace/layout";
import { scoreOf, type Tree, type TraceNode } from "../trace/tree";
import { level, oneLine, type ScoreScale } from "./marks";

export const COLUMN = 150;
export const ROW = 26;
const RADIUS = 6;
const LABELS_FROM = 0.8; // below this zoom labels would run into each other
const MARGIN = 24;

export interface View {
  x: number;
  y: number;
  zoom: number;
}

export interface Scene {
  tree: Tree;
  layout: Layout;
  scale: ScoreScale;
  best: ReadonlySet<number>;
  found: ReadonlySet<number> | null;
  selected: number | null;
}

export interface Theme {
  text: string;
  faint: string;
  line: string;
  accent: string;
  low: readonly number[];
  high: readonly number[];
  surface: string;
}

export function placeOf(layout: Layout, id: number): { x: number; y: number } {
  return { x: MARGIN + layout.column[id]! * COLUMN, y: MARGIN + layout.row[id]! * ROW };
}

/** The zoom and place at which the whole tree is in view. */
export function fit(layout: Layout, width: number, height: number): View {
  const wide = 2 * MARGIN + layout.columns * COLUMN;
  const high = 2 * MARGIN + layout.rows * ROW;
  const zoom = Math.min(1.5, Math.max(0.02, Math.min(width / wide, height / high)));
  return { x: 0, y: Math.max(0, (height - high * zoom) / 2), zoom };
}

/** The node at a point of the canvas, if there is one near. */
export function nodeAt(scene: Scene, view: View, x: number, y: number): number | null {
  const reach = Math.max(RADIUS + 4, 8 / view.zoom);
  let nearest: number | null = null;
  let least = reach * reach;
  for (const node of scene.tree.nodes) {
    if (scene.layout.row[node.id]! < 0) continue;
    const place = placeOf(scene.layout, node.id);
    const distance = ((x - view.x) / view.zoom - place.x) ** 2 + ((y - view.y) / view.zoom - place.y) ** 2;
    if (distance < least) [least, nearest] = [distance, node.id];
  }
  return nearest;
}

export function paint(
  context: CanvasRenderingContext2D,
  scene: Scene,
  view: View,
  theme: Theme,
  width: number,
  height: number,
): void {
  const ratio = window.devicePixelRatio || 1;
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  context.translate(view.x, view.y);
  context.scale(view.zoom, view.zoom);
  const top = -view.y / view.zoom - ROW;
  const bottom = (height - view.y) / view.zoom + ROW;
  const inView = (y: number) => y >= top && y <= bottom;
  const places = new Map<number, { x: number; y: number }>();
  for (const node of scene.tree.nodes)
    if (node.id < scene.layout.row.length && scene.layout.row[node.id]! >= 0) places.set(node.id, placeOf(scene.layout, node.id));
  for (const [id, place] of places) {
    const parent = scene.tree.node(id).parent;
    const from = parent === null ? undefined : places.get(parent);
    if (from === undefined || (!inView(place.y) && !inView(from.y))) continue;
    edge(context, scene, theme, id, from, place);
  }
  for (const [id, place] of places) if (inView(place.y)) mark(context, scene, theme, view, scene.tree.node(id), place);
}

function edge(
  context: CanvasRenderingContext2D,
  scene: Scene,
  theme: Theme,
  id: number,
  from: { x: number; y: number },
  to: { x: number; y: number },
): void {
  const dropped = scene.tree.node(id).status === "dropped";
  const best = scene.best.has(id);
  context.strokeStyle = best ? theme.accent : dropped ? theme.faint : theme.line;
  context.lineWidth = best ? 3 : 1;
  context.setLineDash(dropped && !best ? [3, 3] : []);
  context.beginPath();
  context.moveTo(from.x, from.y);
  const bend = (from.x + to.x) / 2;
  context.bezierCurveTo(bend, from.y, bend, to.y, to.x, to.y);
  context.stroke();
}

function mark(
  context: CanvasRenderingContext2D,
  scene: Scene,
  theme: Theme,
  view: View,
  node: TraceNode,
  place: { x: number; y: number },
): void {
  const dropped = node.status === "dropped";
  const dim = dropped || (scene.found !== null && !scene.found.has(node.id));
  const height = level(node, scene.scale);
  context.globalAlpha = dim ? 0.45 : 1;
  context.setLineDash([]);
  context.lineWidth = scene.best.has(node.id) ? 3 : 1.5;
  context.strokeStyle = scene.best.has(node.id) ? theme.accent : dropped ? theme.faint : theme.text;
  context.fillStyle = height === null || dropped ? theme.surface : blend(theme.low, theme.high, height);
  shape(context, node, place);
  context.fill();
  context.stroke();
  if (scene.selected === node.id) ring(context, theme, place);
  if (view.zoom >= LABELS_FROM) label(context, theme, node, place, dropped);
  context.globalAlpha = 1;
}

/** Square: finished. Triangle: cut. Diamond: forced. Circle: can go on. Cross: dropped. */
function shape(context: CanvasRenderingContext2D, node: TraceNode, { x, y }: { x: number; y: number }): void {
  const r = RADIUS;
  context.beginPath();
  if (node.status === "dropped") {
    context.moveTo(x - r, y - r);
    context.lineTo(x + r, y + r);
    context.moveTo(x + r, y - r);
    context.lineTo(x - r, y + r);
  } else if (node.kind === "forced") polygon(context, [[x, y - r], [x + r, y], [x, y + r], [x - r, y]]);
  else if (node.status === "stop") context.rect(x - r, y - r, 2 * r, 2 * r);
  else if (node.status === "length") polygon(context, [[x - r, y - r], [x + r, y], [x - r, y + r]]);
  else context.arc(x, y, r, 0, 2 * Math.PI);
}

function polygon(context: CanvasRenderingContext2D, corners: readonly (readonly [number, number])[]): void {
  corners.forEach(([x, y], i) => (i === 0 ? context.moveTo(x, y) : context.lineTo(x, y)));
  context.closePath();
}

function ring(context: CanvasRenderingContext2D, theme: Theme, { x, y }: { x: number; y: number }): void {
  context.strokeStyle = theme.accent;
  context.lineWidth = 2;
  context.beginPath();
  context.arc(x, y, RADIUS + 5, 0, 2 * Math.PI);
  context.stroke();
}

function label(
  context: CanvasRenderingContext2D,
  theme: Theme,
  node: TraceNode,
  { x, y }: { x: number; y: number },
  dropped: boolean,
): void {
  const score = scoreOf(node);
  const words = [score === null ? "" : score.toFixed(2), oneLine(node.text, 18)].filter(Boolean).join(" ");
  if (words === "") return;
  context.font = "11px system-ui, sans-serif";
  context.textBaseline = "middle";
  const room = COLUMN - 3 * RADIUS - 6;
  context.fillStyle = theme.surface;
  context.fillRect(x + RADIUS + 3, y - 7, Math.min(context.measureText(words).width, room) + 2, 14);
  context.fillStyle = dropped ? theme.faint : theme.text;
  context.fillText(words, x + RADIUS + 4, y, room);
}

function blend(low: readonly number[], high: readonly number[], share: number): string {
  const mix = low.map((value, i) => Math.round(value + (high[i]! - value) * Math.min(1, Math.max(0, share))));
  return `rgb(${mix.join(" ")})`;
}

/** The colours of the page's theme, read off its variables. */
export function themeOf(element: Element): Theme {
  const style = getComputedStyle(element);
  const read = (name: string) => style.getPropertyValue(name).trim();
  const triple = (name: string) => read(name).split(/[\s,]+/u).map(Number);
  return {
    text: read("--text"),
    faint: read("--faint"),
    line: read("--line-strong"),
    accent: read("--accent"),
    surface: read("--surface"),
    low: triple("--score-low"),
    high: triple("--score-high"),
  };
}
