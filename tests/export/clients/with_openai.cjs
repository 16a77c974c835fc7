// Ask a server with the official client. RISEN_NODE is a folder with its node_modules.
// Reads {"url": ..., "key": ..., "model": ...}, writes what each kind of request gave.
const { createRequire } = require('node:module');
const { readFileSync } = require('node:fs');
const path = require('node:path');

const load = createRequire(path.join(process.env.RISEN_NODE, 'package.json'));
const { OpenAI } = load('openai');
const { url, key, model } = JSON.parse(readFileSync(0, 'utf8'));
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: key, maxRetries: 0 });
const messages = [{ role: 'user', content: 'hello' }];
const asked = { model, messages, max_tokens: 8, temperature: 0 };

(async () => {
  const models = (await client.models.list()).data.map((one) => one.id);
  const whole = (await client.chat.completions.create(asked)).choices[0].message.content;
  let streamed = '';
  for await (const chunk of await client.chat.completions.create({ ...asked, stream: true })) {
    streamed += chunk.choices[0]?.delta?.content ?? '';
  }
  const text = await client.completions.create({
    model, prompt: [40, 41], max_tokens: 3, temperature: 0, logprobs: 1,
  });
  const parameters = {
    type: 'object', properties: { late: { type: 'boolean' } }, required: ['late'],
    additionalProperties: false,
  };
  const tool = { type: 'function', function: { name: 'note', parameters } };
  const called = await client.chat.completions.create({
    ...asked, max_tokens: 60, tools: [tool], tool_choice: 'required',
  });
  const refused = await client.chat.completions.create({ ...asked, model: 'nobody' })
    .then(() => null, (error) => [error.status, error.code]);
  const wrong = new OpenAI({ baseURL: `${url}/v1`, apiKey: 'no', maxRetries: 0 });
  const unknown = await wrong.models.list().then(() => null, (error) => error.status);
  const logprobs = text.choices[0].logprobs.token_logprobs.length;
  const call = called.choices[0].message.tool_calls[0].function;
  console.log(JSON.stringify({ models, whole, streamed, logprobs, call, refused, unknown }));
})();
