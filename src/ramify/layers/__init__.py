"""The parts of a decoder: linear maps, norms, rotary positions, attention, MLP."""
