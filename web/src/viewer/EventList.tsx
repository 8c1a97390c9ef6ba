// The run's events in order, the method's decisions among them; a page at a time.

import { useState } from "preact/hooks";
import type { TraceEvent } from "../trace/events";
import type { Tree } from "../trace/tree";
import { oneLine } from "./marks";

const PAGE = 200;

export function EventList({ tree, onSelect }: { tree: Tree; onSelect: (id: number) => void }) {
  const [first, setFirst] = useState(0);
  const rows = tree.events.slice(first, first + PAGE);
  return (
    <section aria-label="Events">
      <p class="pager">
        <button type="button" disabled={first === 0} onClick={() => setFirst(Math.max(0, first - PAGE))}>
          Earlier
        </button>{" "}
        {first} to {first + rows.length - 1} of {tree.events.length}{" "}
        <button type="button" disabled={first + PAGE >= tree.events.length} onClick={() => setFirst(first + PAGE)}>
          Later
        </button>
      </p>
      <table class="events">
        <thead>
          <tr>
            <th scope="col">event</th>
            <th scope="col">what</th>
            <th scope="col">nodes</th>
            <th scope="col">text</th>
          </tr>
        </thead>
        <tbody>
          {rows.map((event, i) => (
            <tr key={first + i}>
              <td>{first + i}</td>
              <td>{event.type}</td>
              <td>
                {nodesOf(event).map((id) => (
                  <button key={id} type="button" class="link" onClick={() => onSelect(id)}>
                    {id}
                  </button>
                ))}
              </td>
              <td>
                <bdi>{oneLine(wordsOf(event), 160)}</bdi>
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}

function nodesOf(event: TraceEvent): number[] {
  if ("nodes" in event) return event.nodes.slice(0, 64);
  if ("node" in event) return [event.node];
  return event.type === "Reported" ? [event.best] : [];
}

function wordsOf(event: TraceEvent): string {
  switch (event.type) {
    case "Started":
      return `${event.strategy}, seed ${event.seed}: ${event.prompt}`;
    case "Scored":
      return `${event.scorer} ${event.value.toFixed(4)}`;
    case "Resampled":
      return `effective sample size ${event.ess.toFixed(2)}; goes on: ${event.parents.join(" ")}`;
    case "Reported":
      return `answer ${event.answer ?? "none"} of ${event.num_candidates} candidates`;
    case "Stopped":
      return `${event.reason}, ${event.total_tokens} tokens`;
    case "Rooted":
      return event.model;
    default:
      return "text" in event ? event.text : "";
  }
}
