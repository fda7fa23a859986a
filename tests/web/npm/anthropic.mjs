// The official client of Anthropic: one case a run, its outcome as JSON on stdout.
import Anthropic from "@anthropic-ai/sdk";

const [, , url, name] = process.argv;
const client = new Anthropic({ baseURL: url, apiKey: "none", maxRetries: 0 });
const messages = [{ role: "user", content: "Where is the seat?" }];
const base = { model: "tiny", max_tokens: 24, messages };
const find = {
  name: "find_seat",
  description: "Find a free seat",
  input_schema: {
    type: "object",
    properties: { row: { type: "integer", minimum: 1, maximum: 40 } },
    required: ["row"],
    additionalProperties: false, // the model says anything, and would add for ever
  },
};

const cases = {
  whole: async () => await client.messages.create(base),
  stream: async () => {
    const stream = client.messages.stream(base);
    const types = [];
    for await (const event of stream) types.push(event.type);
    return { types, message: await stream.finalMessage() };
  },
  tool: async () =>
    await client.messages.create({
      ...base, max_tokens: 200, tools: [find], tool_choice: { type: "tool", name: "find_seat" },
    }),
  tool_stream: async () => {
    const stream = client.messages.stream({
      ...base, max_tokens: 200, tools: [find], tool_choice: { type: "any", disable_parallel_tool_use: true },
    });
    return await stream.finalMessage();
  },
  count: async () => await client.messages.countTokens({ model: "tiny", messages }),
  refused: async () => {
    try {
      await client.messages.create({ ...base, temperature: 9 });
    } catch (error) {
      return { bad: error instanceof Anthropic.BadRequestError, type: error.error?.error?.type, status: error.status };
    }
  },
  abort: async () => {
    const stream = client.messages.stream({ ...base, max_tokens: 400 });
    for await (const _ of stream) break;
    stream.abort();
    return {};
  },
};

console.log(JSON.stringify(await cases[name]()));
