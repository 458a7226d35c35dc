// Numbers as a researcher writes them: no more digits than the error allows.
const MISSING = "–";

export function withError(value, error) {
  if (value === null || value === undefined || !Number.isFinite(value)) return MISSING;
  if (error === null || error === undefined || !Number.isFinite(error)) return String(Number(value.toPrecision(4)));
  if (error === 0) return `${Number(value.toPrecision(6))} ± 0`;
  const exponent = Math.floor(Math.log10(Math.max(Math.abs(value), error)));
  if (exponent >= -4 && exponent < 7) return fixed(value, error);
  const power = `${exponent < 0 ? "-" : "+"}${String(Math.abs(exponent)).padStart(2, "0")}`;
  return `(${fixed(value / 10 ** exponent, error / 10 ** exponent)})e${power}`;
}

function fixed(value, error) {
  const decimals = 1 - Math.floor(Math.log10(Number(error.toPrecision(2))));
  if (decimals >= 0) return `${value.toFixed(Math.min(decimals, 100))} ± ${error.toFixed(Math.min(decimals, 100))}`;
  const place = 10 ** -decimals;
  return `${Math.round(value / place) * place} ± ${Math.round(error / place) * place}`;
}

export function steps(from, to) {
  return from === null ? MISSING : `${from.toLocaleString()} … ${to.toLocaleString()}`;
}

export function duration(seconds) {
  if (seconds < 60) return seconds < 10 ? `${seconds.toFixed(1)} s` : `${Math.round(seconds)} s`;
  const minutes = Math.floor(Math.round(seconds) / 60);
  const rest = Math.round(seconds) % 60;
  if (minutes < 60) return `${minutes} min ${String(rest).padStart(2, "0")} s`;
  return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
}
