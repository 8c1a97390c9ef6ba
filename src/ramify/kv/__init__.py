"""Keys and values: the block pool, the prefix cache, the tensors that hold them, and how large they may be."""
