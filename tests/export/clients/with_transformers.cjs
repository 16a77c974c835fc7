// Answer with transformers.js by its defaults. RISEN_NODE is a folder with its node_modules.
// Reads {"folder": ..., "prompts": [...], "new_tokens": N}, writes {"single": ids, "batch": ids}.
const { createRequire } = require('node:module');
const { readFileSync } = require('node:fs');
const path = require('node:path');

const load = createRequire(path.join(process.env.RISEN_NODE, 'package.json'));
const { env, pipeline } = load('@huggingface/transformers');
const asked = JSON.parse(readFileSync(0, 'utf8'));
env.allowRemoteModels = false;
env.localModelPath = path.dirname(asked.folder) + path.sep;

(async () => {
  const generator = await pipeline('text-generation', path.basename(asked.folder), { device: 'cpu' });
  const answer = async (prompts) => {
    generator.tokenizer.padding_side = 'left';
    const read = generator.tokenizer(prompts, { padding: true, add_special_tokens: false });
    const ids = await generator.model.generate({
      ...read,
      max_new_tokens: asked.new_tokens,
      do_sample: false,
    });
    const width = read.input_ids.dims.at(-1);
    return ids.tolist().map((row) => row.slice(width).map(Number));
  };
  const single = [];
  for (const prompt of asked.prompts) single.push((await answer([prompt]))[0]);
  const texts = await generator(asked.prompts, {
    max_new_tokens: asked.new_tokens,
    do_sample: false,
    return_full_text: false,
  });
  const batch = await answer(asked.prompts);
  const decoded = batch.map((row) => generator.tokenizer.decode(row, { skip_special_tokens: true }));
  if (texts.some((one, line) => one[0].generated_text !== decoded[line])) {
    throw new Error('the pipeline answers otherwise than its model');
  }
  process.stdout.write(JSON.stringify({ single, batch }));
})();
