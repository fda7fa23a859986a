// The official client of OpenAI: one case a run, its outcome as JSON on stdout.
import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";

const [, , url, name] = process.argv;
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
const messages = [{ role: "user", content: "Where is the seat?" }];
const base = { model: "tiny", messages, max_tokens: 24, temperature: 1, seed: 7 };
const find = {
  type: "function",
  function: {
    name: "find_seat",
    description: "Find a free seat",
    strict: true,
    parameters: {
      type: "object",
      properties: { row: { type: "integer", minimum: 1, maximum: 40 }, side: { enum: ["left", "right"] } },
      required: ["row", "side"],
      additionalProperties: false,
    },
  },
};
const Place = z.object({ row: z.number().int(), note: z.enum(["window", "aisle"]) });

async function gather(stream) {
  const found = { content: "", reasons: [], usage: null, calls: {} };
  for await (const chunk of stream) {
    found.usage = chunk.usage ?? found.usage;
    for (const choice of chunk.choices) {
      found.content += choice.delta.content ?? "";
      for (const call of choice.delta.tool_calls ?? []) {
        const known = (found.calls[call.index] ??= { id: "", name: "", arguments: "" });
        known.id += call.id ?? "";
        known.name += call.function?.name ?? "";
        known.arguments += call.function?.arguments ?? "";
      }
      if (choice.finish_reason) found.reasons.push(choice.finish_reason);
    }
  }
  return found;
}

const cases = {
  whole: async () => await client.chat.completions.create(base),
  stream: async () =>
    await gather(
      await client.chat.completions.create({
        ...base, stream: true, stream_options: { include_usage: true },
      }),
    ),
  choices: async () => await client.chat.completions.create({ ...base, n: 2 }),
  logprobs: async () =>
    await client.chat.completions.create({ ...base, logprobs: true, top_logprobs: 3 }),
  tool: async () =>
    await client.chat.completions.create({
      ...base, max_tokens: 200, tools: [find],
      tool_choice: { type: "function", function: { name: "find_seat" } },
    }),
  tool_stream: async () =>
    await gather(
      await client.chat.completions.create({
        ...base, max_tokens: 200, tools: [find], tool_choice: "required", stream: true,
      }),
    ),
  parsed: async () =>
    (await client.chat.completions.parse({
      ...base, max_tokens: 200, response_format: zodResponseFormat(Place, "place"),
    })).choices[0].message.parsed,
  runner: async () => {
    const stream = client.chat.completions.stream({ ...base });
    return { content: await stream.finalContent(), usage: await stream.totalUsage() };
  },
  completion: async () =>
    await client.completions.create({ model: "tiny", prompt: ["a", "b"], max_tokens: 5 }),
  response: async () =>
    await client.responses.create({ model: "tiny", input: "hello", max_output_tokens: 24 }),
  response_stream: async () => {
    const types = [];
    const stream = client.responses.stream({ model: "tiny", input: "hello", max_output_tokens: 24 });
    for await (const event of stream) types.push(event.type);
    return { types, text: (await stream.finalResponse()).output_text };
  },
  embedding: async () =>
    await client.embeddings.create({ model: "tiny", input: ["a seat", "a table"] }),
  models: async () => (await client.models.list()).data,
  refused: async () => {
    try {
      await client.chat.completions.create({ ...base, temperature: 9 });
    } catch (error) {
      return {
        bad: error instanceof OpenAI.BadRequestError, param: error.param, code: error.code,
        status: error.status,
      };
    }
  },
  abort: async () => {
    const stream = await client.chat.completions.create({ ...base, max_tokens: 400, ignore_eos: true, stream: true });
    for await (const _ of stream) break; // leaving ends the request
    return {};
  },
};

console.log(JSON.stringify(await cases[name]()));
