// The official JavaScript client, unchanged, against the server.
import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI, { toFile } from "openai";
import { zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";
import { EMBEDDER, MODEL, REAL, SCRIPTED, script } from "./servers.mjs";

const make = (baseURL, options = {}) =>
  new OpenAI({ baseURL, apiKey: "none", maxRetries: 0, timeout: 60_000, ...options });
const real = make(REAL);
const quick = make(SCRIPTED);
const messages = [{ role: "user", content: "Say hello." }];
const ask = { model: MODEL, messages, temperature: 0, max_tokens: 12 };
const scriptedAsk = { model: "scripted", messages };

const weather = {
  type: "function",
  function: {
    name: "get_weather",
    description: "The weather at a place.",
    parameters: {
      type: "object",
      additionalProperties: false,
      properties: { place: { type: "string", maxLength: 16 }, days: { type: "integer", minimum: 1, maximum: 7 } },
      required: ["place", "days"],
    },
  },
};
const Person = z.object({ age: z.number().int().min(0).max(120), mood: z.enum(["good", "bad"]) });

test("lists the models", async () => {
  const ids = [];
  for await (const model of real.models.list()) ids.push(model.id);
  assert.deepEqual(ids.sort(), [MODEL, EMBEDDER].sort());
  assert.equal((await real.models.retrieve(MODEL)).object, "model");
});

test("gives a whole answer with usage", async () => {
  const answer = await real.chat.completions.create(ask);
  assert.equal(answer.choices[0].message.role, "assistant");
  assert.ok(answer.choices[0].message.content.length > 0);
  const { prompt_tokens, completion_tokens, total_tokens } = answer.usage;
  assert.equal(prompt_tokens + completion_tokens, total_tokens);
  assert.ok(answer._request_id);
});

test("streams the same text as the whole answer", async () => {
  const whole = await real.chat.completions.create(ask);
  let text = "";
  const ids = new Set();
  let usage;
  for await (const chunk of await real.chat.completions.create(
    { ...ask, stream: true, stream_options: { include_usage: true } },
    { headers: { "Cache-Control": "no-store" } },
  )) {
    ids.add(chunk.id);
    text += chunk.choices[0]?.delta?.content ?? "";
    usage = chunk.usage ?? usage;
  }
  assert.equal(ids.size, 1);
  assert.equal(text, whole.choices[0].message.content);
  assert.equal(usage.completion_tokens, whole.usage.completion_tokens);
});

test("the stream helper emits its events and a final answer", async () => {
  const stream = quick.chat.completions.stream(scriptedAsk);
  const seen = [];
  stream.on("content", (delta) => seen.push(delta));
  const final = await stream.finalChatCompletion();
  assert.equal(seen.join(""), script(6));
  assert.equal(final.choices[0].message.content, script(6));
  assert.ok(["stop", "length"].includes(final.choices[0].finish_reason));
});

test("gives several choices", async () => {
  const answer = await real.chat.completions.create({ ...ask, n: 3, temperature: 1.2, seed: 1 });
  assert.deepEqual(answer.choices.map((choice) => choice.index), [0, 1, 2]);
});

test("gives log probabilities", async () => {
  const answer = await real.chat.completions.create({ ...ask, logprobs: true, top_logprobs: 2 });
  const tokens = answer.choices[0].logprobs.content;
  assert.equal(tokens.map((token) => token.token).join(""), answer.choices[0].message.content);
  assert.ok(tokens.every((token) => token.top_logprobs.length === 2 && token.logprob <= 0));
});

test("makes a forced call whose arguments fit", async () => {
  for (const tool_choice of ["required", { type: "function", function: { name: "get_weather" } }]) {
    const answer = await real.chat.completions.create({
      ...ask, max_tokens: 100, tools: [weather], tool_choice, parallel_tool_calls: false,
    });
    const [call] = answer.choices[0].message.tool_calls;
    assert.equal(call.function.name, "get_weather");
    const given = JSON.parse(call.function.arguments);
    assert.equal(typeof given.place, "string");
    assert.ok(Number.isInteger(given.days) && given.days >= 1 && given.days <= 7);
  }
});

test("the tool runner sees a streamed call and gives its result back", async () => {
  let called;
  const runner = real.chat.completions.runTools({
    ...ask, stream: true, max_tokens: 100, tool_choice: { type: "function", function: { name: "get_weather" } },
    tools: [{
      type: "function",
      function: {
        ...weather.function, parse: JSON.parse,
        function: (given) => { called = given; return "sunny"; },
      },
    }],
  });
  await runner.done();
  assert.equal(typeof called.place, "string");
  assert.ok(runner.messages.some((message) => message.role === "tool" && message.content === "sunny"));
});

test("parses structured output", async () => {
  const answer = await real.chat.completions.parse({
    ...ask, max_tokens: 100, response_format: zodResponseFormat(Person, "person"),
  });
  assert.ok(Person.parse(answer.choices[0].message.parsed));
});

test("keeps to json_object", async () => {
  const answer = await real.chat.completions.create({
    ...ask, max_tokens: 200, response_format: { type: "json_object" },
    messages: [{ role: "user", content: "Give JSON with one key: a." }],
  });
  if (answer.choices[0].finish_reason === "stop")
    assert.equal(typeof JSON.parse(answer.choices[0].message.content), "object");
});

test("legacy completions, whole and streamed", async () => {
  const legacy = { model: MODEL, prompt: "The sun", max_tokens: 8, temperature: 0 };
  const whole = await real.completions.create(legacy);
  let text = "";
  for await (const chunk of await real.completions.create({ ...legacy, stream: true }))
    text += chunk.choices[0].text;
  assert.equal(text, whole.choices[0].text);
});

test("embeds with and without base64", async () => {
  // The client asks for base64 by itself and decodes it.
  const packed = await real.embeddings.create({ model: EMBEDDER, input: ["one", "two"] });
  const floats = await real.embeddings.create({
    model: EMBEDDER, input: ["one", "two"], encoding_format: "float",
  });
  assert.equal(packed.data.length, 2);
  packed.data[0].embedding.forEach((value, i) =>
    assert.ok(Math.abs(value - floats.data[0].embedding[i]) < 1e-6));
  const short = await real.embeddings.create({ model: EMBEDDER, input: "one", dimensions: 8 });
  assert.equal(short.data[0].embedding.length, 8);
});

test("responses, whole", async () => {
  const response = await real.responses.create({
    model: MODEL, input: "Say hello.", temperature: 0, max_output_tokens: 16, metadata: { a: "b" },
  });
  assert.ok(["completed", "incomplete"].includes(response.status));
  assert.ok(response.output_text.length > 0);
  assert.deepEqual(response.metadata, { a: "b" });
  assert.equal((await real.responses.retrieve(response.id)).output_text, response.output_text);
  const items = [];
  for await (const item of real.responses.inputItems.list(response.id)) items.push(item);
  assert.equal(items.length, 1);
  await real.responses.delete(response.id);
  await assert.rejects(real.responses.retrieve(response.id), OpenAI.NotFoundError);
});

test("the responses stream helper makes the final response", async () => {
  const stream = quick.responses.stream({ model: "scripted", input: "a" });
  let text = "";
  stream.on("response.output_text.delta", (event) => { text += event.delta; });
  const final = await stream.finalResponse();
  assert.equal(text, script(6));
  assert.equal(final.output_text, script(6));
});

test("parses structured responses", async () => {
  const response = await real.responses.parse({
    model: MODEL, input: "A person.", temperature: 0, max_output_tokens: 100,
    text: { format: zodTextFormat(Person, "person") },
  });
  assert.ok(Person.parse(response.output_parsed));
});

test("a background response is polled, and its stream read again from the middle", async () => {
  let response = await quick.responses.create({ model: "scripted", input: "a", background: true });
  assert.ok(["queued", "in_progress"].includes(response.status));
  const all = [];
  for await (const event of await quick.responses.retrieve(response.id, { stream: true })) all.push(event);
  response = await quick.responses.retrieve(response.id);
  assert.ok(["completed", "incomplete"].includes(response.status));
  const later = [];
  for await (const event of await quick.responses.retrieve(response.id, { stream: true, starting_after: 2 }))
    later.push(event);
  assert.deepEqual(later, all.slice(3));
  const cancelled = await quick.responses.cancel(response.id);
  assert.equal(cancelled.status, response.status);
  assert.deepEqual(cancelled.output, response.output);
});

test("a conversation keeps its turns", async () => {
  const conversation = await quick.conversations.create({ metadata: { topic: "demo" } });
  await quick.responses.create({ model: "scripted", input: "one", conversation: conversation.id });
  await quick.responses.create({ model: "scripted", input: "two", conversation: conversation.id });
  const roles = [];
  for await (const item of quick.conversations.items.list(conversation.id, { order: "asc" }))
    roles.push(item.role);
  assert.deepEqual(roles, ["user", "assistant", "user", "assistant"]);
  assert.equal((await quick.conversations.delete(conversation.id)).deleted, true);
});

test("a file and a batch", async () => {
  const line = JSON.stringify({
    custom_id: "one", method: "POST", url: "/v1/chat/completions", body: scriptedAsk,
  });
  const file = await quick.files.create({
    file: await toFile(Buffer.from(`${line}\n`), "batch.jsonl"), purpose: "batch",
  });
  assert.equal((await quick.files.waitForProcessing(file.id)).id, file.id);
  let batch = await quick.batches.create({
    input_file_id: file.id, endpoint: "/v1/chat/completions", completion_window: "24h",
  });
  const until = Date.now() + 30_000;
  while (!["completed", "failed"].includes(batch.status) && Date.now() < until) {
    await new Promise((resolve) => setTimeout(resolve, 50));
    batch = await quick.batches.retrieve(batch.id);
  }
  assert.equal(batch.status, "completed");
  assert.deepEqual(batch.request_counts, { total: 1, completed: 1, failed: 0 });
  const output = await (await quick.files.content(batch.output_file_id)).text();
  assert.equal(JSON.parse(output).response.body.choices[0].message.content, script(6));
  assert.equal((await quick.files.delete(file.id)).deleted, true);
});

test("lists page by page", async () => {
  const made = [];
  for (const name of ["1.txt", "2.txt", "3.txt"])
    made.push((await quick.files.create({
      file: await toFile(Buffer.from(name), name), purpose: "user_data",
    })).id);
  const seen = [];
  for await (const file of quick.files.list({ purpose: "user_data", order: "asc", limit: 1 }))
    seen.push(file.id);
  assert.deepEqual(seen.slice(-3), made);
});

test("errors are the client's own types", async () => {
  await assert.rejects(quick.chat.completions.create({ ...scriptedAsk, model: "no-such-model" }),
    (error) => error instanceof OpenAI.NotFoundError && error.code === "model_not_found" && error.param === "model");
  await assert.rejects(quick.chat.completions.create({ ...scriptedAsk, temperature: 9 }),
    (error) => error instanceof OpenAI.BadRequestError && error.param === "temperature"
      && error.type === "invalid_request_error" && typeof error.requestID === "string");
  await assert.rejects(
    quick.chat.completions.create({ ...scriptedAsk, stream: true, temperature: 9 }), OpenAI.BadRequestError);
  const key = { headers: { "Idempotency-Key": "node-key" } };
  await quick.chat.completions.create(scriptedAsk, key);
  await assert.rejects(quick.chat.completions.create({ ...scriptedAsk, max_tokens: 2 }, key),
    OpenAI.UnprocessableEntityError);
});

test("an idempotent request that is retried is one request", async () => {
  const key = { headers: { "Idempotency-Key": "node-twice" } };
  const [first, second] = await Promise.all([
    quick.chat.completions.create(scriptedAsk, key), quick.chat.completions.create(scriptedAsk, key)]);
  assert.equal(first.id, second.id);
  assert.deepEqual(first.choices, second.choices);
});

test("an aborted stream ends, and its request is cancelled", async () => {
  const controller = new AbortController();
  const { data: stream, response } = await real.chat.completions.create(
    { ...ask, max_tokens: 2000, stream: true, messages: [{ role: "user", content: "Count to a million." }],
      logit_bias: { 2: -100 } },
    { signal: controller.signal }).withResponse();
  const id = response.headers.get("x-request-id");
  let chunks = 0;
  try {
    for await (const _ of stream) if (++chunks === 4) controller.abort();
  } catch (error) {
    assert.ok(error instanceof OpenAI.APIUserAbortError || error.name === "AbortError");
  }
  assert.ok(chunks >= 4 && chunks < 100);
  const until = Date.now() + 15_000;
  let state;
  do {
    state = (await (await fetch(`${REAL}/requests/${id}`)).json()).state;
    await new Promise((resolve) => setTimeout(resolve, 50));
  } while (state !== "cancelled" && Date.now() < until);
  assert.equal(state, "cancelled");
});

test("a timeout is the client's timeout error", async () => {
  const hasty = make(REAL, { timeout: 150 });
  await assert.rejects(
    hasty.chat.completions.create({ ...ask, max_tokens: 2000, logit_bias: { 2: -100 } }),
    OpenAI.APIConnectionTimeoutError);
});
