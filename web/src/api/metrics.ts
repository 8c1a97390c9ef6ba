// Prometheus' text format, as much of it as the dashboard reads, and rates and percentiles between two readings.

export type Sample = { name: string; labels: Record<string, string>; value: number };

export function parseMetrics(text: string): Sample[] {
  const samples: Sample[] = [];
  for (const line of text.split("\n")) {
    const found = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)/u.exec(line);
    if (found === null) continue;
    const labels: Record<string, string> = {};
    for (const [, name, value] of (found[2] ?? "").matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/gu)) labels[name!] = value!;
    samples.push({ name: found[1]!, labels, value: Number(found[3]) });
  }
  return samples;
}

/** Sum of a metric over its labels, or over those of one model. */
export function total(samples: readonly Sample[], name: string, model?: string): number {
  return samples
    .filter((sample) => sample.name === name && (model === undefined || sample.labels.model_name === model))
    .reduce((sum, sample) => sum + sample.value, 0);
}

/** A percentile of what a histogram gained between two readings, by linear interpolation in its bucket; null if nothing. */
export function percentile(before: readonly Sample[], after: readonly Sample[], name: string, share: number, model: string): number | null {
  const old = new Map(buckets(before, name, model));
  const gained = buckets(after, name, model).map(([bound, count]) => [bound, count - (old.get(bound) ?? 0)] as const);
  const all = gained[gained.length - 1]?.[1] ?? 0;
  if (all <= 0) return null;
  let lower = 0;
  let below = 0;
  for (const [bound, count] of gained) {
    if (count >= share * all) {
      if (!Number.isFinite(bound)) return lower;
      return lower + ((bound - lower) * (share * all - below)) / Math.max(1e-12, count - below);
    }
    [lower, below] = [bound, count];
  }
  return lower;
}

function buckets(samples: readonly Sample[], name: string, model: string): [number, number][] {
  return samples
    .filter((sample) => sample.name === `${name}_bucket` && sample.labels.model_name === model)
    .map((sample): [number, number] => [sample.labels.le === "+Inf" ? Infinity : Number(sample.labels.le), sample.value])
    .sort((a, b) => a[0] - b[0]);
}
