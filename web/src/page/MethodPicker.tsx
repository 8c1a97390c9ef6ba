// Which method answers, and what it may cost.

import { useId } from "preact/hooks";
import type { Method, StrategyCard } from "../api/client";
import { PRESETS } from "./methods";

interface Props {
  method: Method;
  cards: readonly StrategyCard[];
  onMethod: (method: Method) => void;
  legend?: string;
}

export function MethodPicker({ method, cards, onMethod, legend = "Method" }: Props) {
  const list = useId();
  const preset = PRESETS.findIndex((each) => each.method.strategy === method.strategy);
  const card = cards.find((each) => each.id === method.strategy.split(":")[0]);
  return (
    <fieldset class="picker">
      <legend>{legend}</legend>
      <label>
        Method
        <select value={preset} onChange={(event) => Number(event.currentTarget.value) >= 0 && onMethod(PRESETS[Number(event.currentTarget.value)]!.method)}>
          {PRESETS.map((each, i) => (
            <option key={each.label} value={i}>
              {each.label}
            </option>
          ))}
          {preset < 0 && <option value={-1}>As written</option>}
        </select>
      </label>
      <label class="grow">
        Spec (name:key=value,...)
        <input
          list={list}
          value={method.strategy}
          placeholder="one sample"
          spellcheck={false}
          onInput={(event) => onMethod({ ...method, strategy: event.currentTarget.value.trim() })}
        />
      </label>
      <datalist id={list}>
        {cards.map((each) => (
          <option key={each.id} value={each.id}>
            {each.summary}
          </option>
        ))}
      </datalist>
      <label>
        Budget, tokens
        <input
          class="narrow"
          type="number"
          min={1}
          value={method.budget ?? ""}
          disabled={method.strategy === ""}
          onInput={(event) => onMethod({ ...method, budget: event.currentTarget.value === "" ? null : event.currentTarget.valueAsNumber })}
        />
      </label>
      {card !== undefined && <p class="faint summary">{card.summary}</p>}
    </fieldset>
  );
}
