// A line without axes: where a number has been over the last minutes.

const WIDTH = 160;
const HEIGHT = 36;

export function Sparkline({ values, name }: { values: readonly number[]; name: string }) {
  const most = Math.max(1e-9, ...values);
  const step = WIDTH / Math.max(1, values.length - 1);
  const path = values.map((value, i) => `${i === 0 ? "M" : "L"}${(i * step).toFixed(1)} ${(HEIGHT - 2 - (value / most) * (HEIGHT - 4)).toFixed(1)}`).join("");
  return (
    <svg class="spark" viewBox={`0 0 ${WIDTH} ${HEIGHT}`} role="img" aria-label={`${name} over time, at most ${most.toPrecision(3)}`}>
      <path d={path} />
    </svg>
  );
}
