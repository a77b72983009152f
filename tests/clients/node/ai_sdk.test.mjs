// The Vercel AI SDK with its OpenAI-compatible provider, unchanged, against the server.
import assert from "node:assert/strict";
import { test } from "node:test";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import {
  APICallError, NoSuchModelError, Output, RetryError, embed, embedMany, generateText, isStepCount,
  streamText, tool,
} from "ai";
import { z } from "zod";
import { EMBEDDER, MODEL, REAL, SCRIPTED, script } from "./servers.mjs";

const provide = (baseURL) => createOpenAICompatible({
  name: "waystation", baseURL, apiKey: "none", includeUsage: true, supportsStructuredOutputs: true,
});
const real = provide(REAL);
const quick = provide(SCRIPTED);
const ask = { model: real.chatModel(MODEL), prompt: "Say hello.", temperature: 0, maxOutputTokens: 12, maxRetries: 0 };
const scriptedAsk = { model: quick.chatModel("scripted"), prompt: "a", maxRetries: 0 };

const weather = tool({
  description: "The weather at a place.",
  inputSchema: z.object({ place: z.string().max(16), days: z.number().int().min(1).max(7) }),
  execute: async ({ place }) => `sunny in ${place}`,
});
const Person = z.object({ age: z.number().int().min(0).max(120), mood: z.enum(["good", "bad"]) });

test("generateText gives text, reason and usage", async () => {
  const result = await generateText(ask);
  assert.ok(result.text.length > 0);
  assert.ok(["stop", "length"].includes(result.finishReason));
  assert.ok(result.usage.inputTokens > 0 && result.usage.outputTokens > 0);
  assert.equal(result.usage.totalTokens, result.usage.inputTokens + result.usage.outputTokens);
  assert.equal(result.response.modelId, MODEL);
});

test("streamText gives the same text in pieces", async () => {
  const fresh = { ...ask, headers: { "cache-control": "no-store" } };
  const whole = await generateText(fresh);
  const result = streamText(fresh);
  let text = "";
  for await (const piece of result.textStream) text += piece;
  assert.equal(text, whole.text);
  assert.deepEqual((await result.usage).outputTokens, whole.usage.outputTokens);
  assert.equal(await result.finishReason, whole.finishReason);
});

test("streamText's whole stream is in order", async () => {
  const kinds = [];
  for await (const part of streamText(scriptedAsk).fullStream) kinds.push(part.type);
  assert.ok(!kinds.includes("error"), kinds.join());
  assert.ok(kinds.indexOf("text-start") < kinds.indexOf("text-delta"));
  assert.ok(kinds.lastIndexOf("text-delta") < kinds.indexOf("text-end"));
  assert.equal(kinds.at(-1), "finish");
});

test("messages with roles and parts are taken", async () => {
  const { prompt: _, ...rest } = scriptedAsk;
  const result = await generateText({
    ...rest, system: "Be brief.",
    messages: [
      { role: "user", content: [{ type: "text", text: "one" }] },
      { role: "assistant", content: "two" },
      { role: "user", content: "three" },
    ],
  });
  assert.equal(result.text, script(6));
});

test("stop sequences and limits are kept", async () => {
  const result = await generateText({ ...scriptedAsk, maxOutputTokens: 3 });
  assert.equal(result.text.trim(), script(3).trim());
  assert.equal(result.finishReason, "length");
  const whole = await generateText({ ...ask, maxOutputTokens: 24 });
  const word = whole.text.split(" ")[2];
  const cut = await generateText({ ...ask, maxOutputTokens: 24, stopSequences: [word] });
  assert.equal(cut.text, whole.text.slice(0, whole.text.indexOf(word)));
  assert.equal(cut.finishReason, "stop");
});

test("a seed repeats an answer", async () => {
  const wild = { ...ask, temperature: 1.5, seed: 17, headers: { "cache-control": "no-store" } };
  assert.equal((await generateText(wild)).text, (await generateText(wild)).text);
});

test("a required tool is called, and its result goes back", async () => {
  const result = await generateText({
    ...ask, maxOutputTokens: 100, tools: { weather }, toolChoice: "required", stopWhen: isStepCount(2),
    providerOptions: { waystation: { parallel_tool_calls: false } },
  });
  const calls = result.steps.flatMap((step) => step.toolCalls);
  assert.ok(calls.length >= 1 && calls.every((call) => call.toolName === "weather" && !call.invalid));
  const results = result.steps.flatMap((step) => step.toolResults);
  assert.match(String(results[0].output), /^sunny in /);
});

test("a named tool is called in a stream", async () => {
  const result = streamText({
    ...ask, maxOutputTokens: 100, tools: { weather }, toolChoice: { type: "tool", toolName: "weather" },
  });
  const kinds = [];
  for await (const part of result.fullStream) kinds.push(part.type);
  assert.ok(kinds.includes("tool-input-start") && kinds.includes("tool-input-delta"), kinds.join());
  const [call] = await result.toolCalls;
  assert.equal(call.toolName, "weather");
  assert.ok(call.input.days >= 1 && call.input.days <= 7);
  assert.equal(await result.finishReason, "tool-calls");
});

test("no tool is called when none may be", async () => {
  const result = await generateText({ ...ask, tools: { weather }, toolChoice: "none" });
  assert.deepEqual(result.toolCalls, []);
});

test("structured output fits its schema", async () => {
  const result = await generateText({
    ...ask, maxOutputTokens: 100, output: Output.object({ schema: Person }),
  });
  assert.ok(Person.parse(result.output));
});

test("structured output is streamed", async () => {
  const result = streamText({ ...ask, maxOutputTokens: 100, output: Output.object({ schema: Person }) });
  let last;
  for await (const partial of result.partialOutputStream) last = partial;
  assert.deepEqual(Person.parse(last), last);
});

test("a choice among words is one of them", async () => {
  const result = await generateText({
    ...ask, maxOutputTokens: 60, output: Output.choice({ options: ["red", "green"] }),
  });
  assert.ok(["red", "green"].includes(result.output));
});

test("the legacy completion model", async () => {
  const model = quick.completionModel("scripted");
  assert.equal((await generateText({ model, prompt: "a", maxRetries: 0 })).text, script(6));
  let text = "";
  for await (const piece of streamText({ model, prompt: "a", maxRetries: 0 }).textStream) text += piece;
  assert.equal(text, script(6));
});

test("embeddings", async () => {
  const model = real.embeddingModel(EMBEDDER);
  const { embedding, usage } = await embed({ model, value: "one" });
  assert.ok(embedding.length > 16 && usage.tokens > 0);
  const many = await embedMany({ model, values: ["one", "two", "three"] });
  assert.equal(many.embeddings.length, 3);
  many.embeddings[0].forEach((value, i) => assert.ok(Math.abs(value - embedding[i]) < 1e-4));
});

test("errors are the SDK's own types", async () => {
  await assert.rejects(generateText({ ...scriptedAsk, temperature: 9 }), (error) =>
    APICallError.isInstance(error) && error.statusCode === 400 && !error.isRetryable
      && error.message.includes("temperature"));
  await assert.rejects(generateText({ ...scriptedAsk, model: quick.chatModel("no-such-model") }), (error) =>
    (APICallError.isInstance(error) && error.statusCode === 404) || NoSuchModelError.isInstance(error));
});

test("an error before a stream is the stream's error", async () => {
  const seen = [];
  const result = streamText({ ...scriptedAsk, temperature: 9, onError: ({ error }) => seen.push(error) });
  for await (const _ of result.fullStream);
  assert.equal(seen.length, 1);
  assert.ok(APICallError.isInstance(seen[0]) && seen[0].statusCode === 400);
});

test("an unreachable server is retried as often as asked", async () => {
  const nowhere = provide("http://127.0.0.1:1/v1");
  await assert.rejects(generateText({ model: nowhere.chatModel("x"), prompt: "a", maxRetries: 1 }), (error) =>
    RetryError.isInstance(error) && error.errors.length === 2);
});

test("an aborted stream ends and its request is cancelled", async () => {
  const controller = new AbortController();
  const result = streamText({
    ...ask, prompt: "Count to a million.", maxOutputTokens: 2000, abortSignal: controller.signal,
  });
  const kinds = [];
  let pieces = 0;
  for await (const part of result.fullStream) {
    kinds.push(part.type);
    if (part.type === "text-delta" && ++pieces === 3) controller.abort();
  }
  assert.ok(kinds.includes("abort"), kinds.slice(-3).join());
  assert.ok(pieces < 100);
});
