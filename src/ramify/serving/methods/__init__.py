"""Inference-time methods over HTTP: any chat or text completion may ask for a method and a budget."""
