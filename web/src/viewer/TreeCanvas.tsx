// The tree as a picture that can be moved and zoomed, with wheel, fingers or keys.

import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { layOut } from "../trace/layout";
import type { Tree } from "../trace/tree";
import { scaleOf } from "./marks";
import { fit, nodeAt, paint, placeOf, themeOf, type Scene, type View } from "./paint";

interface Props {
  tree: Tree;
  /** Changes whenever the tree does. */
  version: number;
  shown: ReadonlySet<number> | null;
  found: ReadonlySet<number> | null;
  selected: number | null;
  onSelect: (id: number) => void;
}

const STEP = 60;

export function TreeCanvas({ tree, version, shown, found, selected, onSelect }: Props) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const [size, setSize] = useState({ width: 0, height: 0 });
  const [view, setView] = useState<View | null>(null);
  const layout = useMemo(() => layOut(tree, (id) => shown === null || shown.has(id)), [tree, version, shown]);
  const scene: Scene = useMemo(
    () => ({ tree, layout, scale: scaleOf(tree), best: tree.bestPath(), found, selected }),
    [tree, version, layout, found, selected],
  );
  const whole = fit(layout, size.width, size.height);
  const seen = view ?? whole;

  useLayoutEffect(() => {
    const element = canvas.current!;
    const watch = new ResizeObserver(() => setSize({ width: element.clientWidth, height: element.clientHeight }));
    watch.observe(element);
    return () => watch.disconnect();
  }, []);

  useEffect(() => {
    const frame = requestAnimationFrame(() => draw(canvas.current, scene, seen, size));
    return () => cancelAnimationFrame(frame);
  });

  useEffect(() => {
    const theme = matchMedia("(prefers-color-scheme: dark)");
    const redraw = () => draw(canvas.current, scene, seen, size);
    theme.addEventListener("change", redraw);
    return () => theme.removeEventListener("change", redraw);
  });

  // A node chosen elsewhere is brought into view.
  useEffect(() => {
    if (selected === null || view === null || layout.row[selected] === undefined || layout.row[selected]! < 0) return;
    const place = placeOf(layout, selected);
    const x = place.x * view.zoom + view.x;
    const y = place.y * view.zoom + view.y;
    if (x < 0 || y < 0 || x > size.width || y > size.height)
      setView({ ...view, x: size.width / 2 - place.x * view.zoom, y: size.height / 2 - place.y * view.zoom });
  }, [selected]);

  // Preact listens passively to wheels; zooming has to keep the page from scrolling.
  useEffect(() => {
    const element = canvas.current!;
    const onWheel = (event: WheelEvent) => {
      event.preventDefault();
      const zoomed = event.ctrlKey || !event.shiftKey;
      setView(zoomed ? zoomAt(seen, event.offsetX, event.offsetY, 0.998 ** event.deltaY) : { ...seen, y: seen.y - event.deltaY });
    };
    element.addEventListener("wheel", onWheel, { passive: false });
    return () => element.removeEventListener("wheel", onWheel);
  });

  const drag = useRef<{ x: number; y: number; moved: boolean; from: View } | null>(null);
  const onKey = (event: KeyboardEvent) => {
    const moves: Record<string, () => View | null> = {
      ArrowLeft: () => ({ ...seen, x: seen.x + STEP }),
      ArrowRight: () => ({ ...seen, x: seen.x - STEP }),
      ArrowUp: () => ({ ...seen, y: seen.y + STEP }),
      ArrowDown: () => ({ ...seen, y: seen.y - STEP }),
      "+": () => zoomAt(seen, size.width / 2, size.height / 2, 1.25),
      "-": () => zoomAt(seen, size.width / 2, size.height / 2, 0.8),
      "0": () => null,
    };
    const move = moves[event.key];
    if (move === undefined) return;
    event.preventDefault();
    setView(move());
  };

  return (
    <div class="tree-canvas">
      <canvas
        ref={canvas}
        tabIndex={0}
        role="img"
        aria-label={`Search tree of ${tree.nodes.length} nodes; the list of nodes says the same in words. Arrow keys move, plus and minus zoom, zero fits.`}
        onKeyDown={onKey}
        onPointerDown={(event) => {
          drag.current = { x: event.clientX, y: event.clientY, moved: false, from: seen };
          event.currentTarget.setPointerCapture(event.pointerId);
        }}
        onPointerMove={(event) => {
          const start = drag.current;
          if (start === null) return;
          const [dx, dy] = [event.clientX - start.x, event.clientY - start.y];
          if (Math.hypot(dx, dy) > 4) start.moved = true;
          if (start.moved) setView({ ...start.from, x: start.from.x + dx, y: start.from.y + dy });
        }}
        onPointerUp={(event) => {
          const start = drag.current;
          drag.current = null;
          if (start === null || start.moved) return;
          const found = nodeAt(scene, seen, event.offsetX, event.offsetY);
          if (found !== null) onSelect(found);
        }}
        onPointerCancel={() => (drag.current = null)}
      />
      <div class="canvas-tools">
        <button type="button" aria-label="Zoom in" onClick={() => setView(zoomAt(seen, size.width / 2, size.height / 2, 1.25))}>
          +
        </button>
        <button type="button" aria-label="Zoom out" onClick={() => setView(zoomAt(seen, size.width / 2, size.height / 2, 0.8))}>
          −
        </button>
        <button type="button" onClick={() => setView(null)}>
          Fit
        </button>
      </div>
      <Legend />
    </div>
  );
}

function Legend() {
  return (
    <p class="legend">
      <span>○ can go on</span> <span>■ finished</span> <span>▶ cut</span> <span>✕ dropped</span> <span>◆ forced</span>{" "}
      <span class="legend-scale">score low → high</span> <span>thick line: way to the answer</span>
    </p>
  );
}

function zoomAt(view: View, x: number, y: number, factor: number): View {
  const zoom = Math.min(4, Math.max(0.02, view.zoom * factor));
  const share = zoom / view.zoom;
  return { zoom, x: x - (x - view.x) * share, y: y - (y - view.y) * share };
}

function draw(element: HTMLCanvasElement | null, scene: Scene, view: View, size: { width: number; height: number }): void {
  const context = element?.getContext("2d");
  if (!element || !context || size.width === 0) return;
  const ratio = window.devicePixelRatio || 1;
  const [width, height] = [Math.round(size.width * ratio), Math.round(size.height * ratio)];
  if (element.width !== width) element.width = width;
  if (element.height !== height) element.height = height;
  paint(context, scene, view, themeOf(element), size.width, size.height);
}
