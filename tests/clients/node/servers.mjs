// Where the servers are, and what the tests ask of them.
export const REAL = `${process.env.WAYSTATION_REAL}/v1`;
export const SCRIPTED = `${process.env.WAYSTATION_SCRIPTED}/v1`;
export const MODEL = process.env.WAYSTATION_MODEL;
export const EMBEDDER = "embedder";

// The scripted engine's answer.
export const script = (tokens) =>
  Array.from({ length: tokens }, (_, i) => `tok${i} `).join("");

// Many more tokens than a test waits for.
export const LONG = 400;
