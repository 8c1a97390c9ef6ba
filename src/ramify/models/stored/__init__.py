"""Published quantised checkpoints in safetensors: what their `quantization_config` says, and how each is unpacked."""
