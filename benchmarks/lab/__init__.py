"""The performance laboratory: ramify and its peers on the same weights and the same token ids, taking turns."""
