// The AI SDK with its provider for servers that speak OpenAI's API.
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateObject, generateText, jsonSchema, streamText, tool } from "ai";
import { z } from "zod";

const [, , url, name] = process.argv;
const provider = createOpenAICompatible({
  name: "trio", baseURL: `${url}/v1`, includeUsage: true, supportsStructuredOutputs: true,
});
const model = provider("tiny");
const prompt = "Where is the seat?";
const find = tool({
  description: "Find a free seat",
  inputSchema: z.object({ row: z.number().int().min(1).max(40) }),
});

const cases = {
  whole: async () => {
    const { text, usage, finishReason } = await generateText({ model, prompt, maxOutputTokens: 24 });
    return { text, usage, finishReason };
  },
  stream: async () => {
    const result = streamText({ model, prompt, maxOutputTokens: 24 });
    let text = "";
    for await (const part of result.textStream) text += part;
    return { text, usage: await result.usage, finishReason: await result.finishReason };
  },
  object: async () =>
    (await generateObject({
      model, prompt, maxOutputTokens: 200,
      schema: z.object({ row: z.number().int(), note: z.enum(["window", "aisle"]) }),
    })).object,
  tool: async () => {
    const { toolCalls, finishReason } = await generateText({
      model, prompt, maxOutputTokens: 2000, tools: { find_seat: find }, toolChoice: "required",
    });
    return { calls: toolCalls.map(({ toolName, input }) => ({ toolName, input })), finishReason };
  },
  embedding: async () => {
    const { embed } = await import("ai");
    const { embedding } = await embed({ model: provider.textEmbeddingModel("tiny"), value: "a seat" });
    return { length: embedding.length };
  },
};

console.log(JSON.stringify(await cases[name]()));
