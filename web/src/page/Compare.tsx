// Two methods on one prompt, side by side, at the same time and in the same batch of the engine.

import { useState } from "preact/hooks";
import type { Method, StrategyCard } from "../api/client";
import { MethodPicker } from "./MethodPicker";
import { PRESETS } from "./methods";
import { useRun } from "./run";
import { RunView } from "./RunView";

export function Compare({ model, cards }: { model: string; cards: readonly StrategyCard[] }) {
  const [prompt, setPrompt] = useState("");
  const [left, setLeft] = useState<Method>(PRESETS[1]!.method);
  const [right, setRight] = useState<Method>(PRESETS[3]!.method);
  const one = useRun();
  const other = useRun();
  const running = one.run?.state === "running" || other.run?.state === "running";
  const start = () => {
    const messages = [{ role: "user" as const, content: prompt.trim() }];
    const sampling = { temperature: 0.8, seed: 0 };
    one.start({ model, messages, method: left, sampling });
    other.start({ model, messages, method: right, sampling });
  };
  const stop = () => {
    one.stop();
    other.stop();
  };
  return (
    <section class="compare" aria-label="Compare two methods">
      <form
        class="composer"
        onSubmit={(event) => {
          event.preventDefault();
          if (!running && prompt.trim() !== "" && model !== "") start();
        }}
      >
        <label class="grow">
          Prompt for both
          <textarea rows={3} value={prompt} onInput={(event) => setPrompt(event.currentTarget.value)} />
        </label>
        {running ? (
          <button type="button" onClick={stop}>
            Stop both
          </button>
        ) : (
          <button type="submit" class="primary" disabled={prompt.trim() === "" || model === ""}>
            Compare
          </button>
        )}
      </form>
      {one.run?.outcome && other.run?.outcome && <Difference one={one.run.outcome.ledger} other={other.run.outcome.ledger} />}
      <div class="sides">
        <section aria-label="First method">
          <MethodPicker legend="First method" method={left} cards={cards} onMethod={setLeft} />
          {one.run !== null && <RunView run={one.run} live={one.live} />}
        </section>
        <section aria-label="Second method">
          <MethodPicker legend="Second method" method={right} cards={cards} onMethod={setRight} />
          {other.run !== null && <RunView run={other.run} live={other.live} />}
        </section>
      </div>
    </section>
  );
}

const SHOWN = ["generated", "verifier", "discarded", "calls", "wall_s"];

function Difference({ one, other }: { one: Record<string, number>; other: Record<string, number> }) {
  return (
    <table>
      <caption>What each cost</caption>
      <thead>
        <tr>
          <th scope="col">of the ledger</th>
          <th scope="col">first</th>
          <th scope="col">second</th>
        </tr>
      </thead>
      <tbody>
        {SHOWN.map((name) => (
          <tr key={name}>
            <th scope="row">{name}</th>
            <td class="amount">{(one[name] ?? 0).toLocaleString("en")}</td>
            <td class="amount">{(other[name] ?? 0).toLocaleString("en")}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}
