"""The ten lines that users of vLLM know, with another import."""

from ramify import LLM, SamplingParams

prompts = ["12 + 7 =", "Tom has 3 apples."]
sampling_params = SamplingParams(temperature=0.8, top_p=0.95, max_tokens=24)

llm = LLM(model="nano")
outputs = llm.generate(prompts, sampling_params)

for output in outputs:
    print(f"{output.prompt!r} -> {output.outputs[0].text!r}")
