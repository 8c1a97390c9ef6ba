// An answer with what stands behind it: text, state, search and ledger.

import { useState } from "preact/hooks";
import { Text } from "../viewer/NodePanel";
import { LedgerTable } from "../viewer/LedgerTable";
import { visible } from "../viewer/marks";
import { Viewer } from "../viewer/Viewer";
import type { LiveTree, Run } from "./run";

const STATES = {
  running: "running",
  done: "done",
  stopped: "stopped by you",
  failed: "failed",
  interrupted: "interrupted by a reload",
} as const;

interface Props {
  run: Run;
  live: LiveTree | null;
  open?: boolean;
  onRetry?: () => void;
}

export function RunView({ run, live, open = true, onRetry }: Props) {
  const [shown, setShown] = useState(open);
  return (
    <div class={`answer ${run.state}`} aria-busy={run.state === "running"}>
      {run.reasoning !== "" && (
        <details>
          <summary>Reasoning</summary>
          <Text text={run.reasoning} />
        </details>
      )}
      {run.text !== "" && <Text text={run.text} />}
      <p class="faint status" role="status">
        {STATES[run.state]}
        {run.outcome !== null && (
          <>
            , answer <bdi class="strong">{run.outcome.answer === null ? "(none)" : visible(run.outcome.answer)}</bdi>, {run.outcome.stop_reason}
          </>
        )}
        {run.usage !== null && `, ${run.usage.completion_tokens} tokens`}
        {run.seconds !== null && `, ${run.seconds.toFixed(1)} s`}
        {run.state === "running" && live !== null && `, ${live.tree.nodes.length} nodes`}
      </p>
      {run.error !== null && (
        <p class="error" role="alert">
          {visible(run.error)}
        </p>
      )}
      {onRetry !== undefined && run.state !== "running" && run.state !== "done" && (
        <button type="button" onClick={onRetry}>
          Ask again
        </button>
      )}
      {live !== null && (
        <details open={shown} onToggle={(event) => setShown(event.currentTarget.open)}>
          <summary>The search: {live.tree.nodes.length} nodes</summary>
          {shown && <Viewer tree={live.tree} version={live.version} permalinks={false} />}
        </details>
      )}
      {run.outcome !== null && (
        <details>
          <summary>Ledger</summary>
          <LedgerTable ledger={run.outcome.ledger} />
        </details>
      )}
    </div>
  );
}
