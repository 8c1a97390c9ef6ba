// The events of a run, as `ramify solve --trace` and the server write them: one JSON object a line.

export type Ledger = Record<string, number>;

export type TraceEvent =
  | { type: "Started"; problem: string; strategy: string; seed: number; prompt: string; format: number }
  | { type: "Rooted"; node: number; model: string }
  | {
      type: "Grown";
      node: number;
      parent: number;
      text: string;
      num_tokens: number;
      finish_reason: string | null;
      logprob: number | null;
      token_ids: number[];
    }
  | { type: "Forced"; node: number; parent: number; text: string; num_tokens: number; token_ids: number[] }
  | { type: "Asked"; node: number; purse: string; text: string; num_tokens: number }
  | { type: "Probed"; node: number; text: string; num_tokens: number }
  | { type: "Noted"; text: string }
  | { type: "Scored"; node: number; scorer: string; value: number }
  | { type: "Dropped"; nodes: number[] }
  | { type: "Cut"; nodes: number[] }
  | { type: "Resampled"; nodes: number[]; parents: number[]; ess: number }
  | { type: "Reported"; best: number; answer: string | null; num_candidates: number }
  | { type: "Ran"; node: number; first_step: number; last_step: number }
  | { type: "Stopped"; reason: string; total_tokens: number; ledger: Ledger };

/** The events of a JSONL text; a torn last line (the run was killed) is left out. */
export function parseEvents(text: string): TraceEvent[] {
  const lines = text.split("\n").filter((line) => line.trim() !== "");
  const events: TraceEvent[] = [];
  lines.forEach((line, place) => {
    try {
      events.push(JSON.parse(line) as TraceEvent);
    } catch (error) {
      if (place !== lines.length - 1) throw new Error(`line ${place + 1} is no event: ${String(error)}`);
    }
  });
  return events;
}
