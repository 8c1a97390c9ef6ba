// Methods that a newcomer can choose without reading: the rest are a search away.

import type { Method } from "../api/client";

export interface Preset {
  label: string;
  method: Method;
}

export const PRESETS: Preset[] = [
  { label: "One sample", method: { strategy: "", budget: null } },
  { label: "Best of 8 (reward model)", method: { strategy: "best-of-n:n=8", budget: 2000 } },
  { label: "Vote of 8", method: { strategy: "self-consistency:n=8", budget: 2000 } },
  { label: "Particle filter, 8", method: { strategy: "particle-filter:n=8", budget: 2000 } },
  { label: "Beam search, 8", method: { strategy: "beam:n=8,m=4", budget: 2000 } },
  { label: "REBASE, 8", method: { strategy: "rebase:n=8", budget: 2000 } },
];

export const DEFAULT_METHOD: Method = PRESETS[3]!.method;
