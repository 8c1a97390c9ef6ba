// What a run cost, by purse.

import type { Ledger } from "../trace/events";
import { visible } from "./marks";

const MEANING: Record<string, string> = {
  prompt: "tokens of prompts",
  prompt_cached: "of these, found in the prefix cache",
  generated: "tokens drawn",
  verifier: "tokens that reward models read",
  probe: "tokens of probes",
  program: "tokens of a program's calls",
  discarded: "of all these, in branches that were given up",
  shared: "prompt tokens shared among branches",
  saved: "tokens not drawn because the method stopped early (estimate)",
  calls: "calls of the backend",
  lost: "tokens of attempts that broke off",
  wall_s: "seconds",
  cost: "cost",
};
const PURSES = ["generated", "verifier", "probe", "program"];

export function LedgerTable({ ledger }: { ledger: Ledger }) {
  const total = PURSES.reduce((sum, name) => sum + (ledger[name] ?? 0), 0);
  return (
    <table class="ledger">
      <caption>Ledger: {format(total)} tokens of the budget</caption>
      <tbody>
        {Object.entries(ledger).map(([name, value]) => (
          <tr key={name}>
            <th scope="row">{visible(name)}</th>
            <td class="amount">{format(value)}</td>
            <td class="share">{PURSES.includes(name) && total > 0 && <meter aria-label={`share of ${name}`} min={0} max={total} value={value} />}</td>
            <td class="faint">{MEANING[name] ?? ""}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

function format(value: number): string {
  return Number.isInteger(value) ? value.toLocaleString("en") : value.toFixed(3);
}
