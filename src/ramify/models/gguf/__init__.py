"""GGUF files, the format of llama.cpp: a strict reader, the block formats, and what the metadata says of the model."""
