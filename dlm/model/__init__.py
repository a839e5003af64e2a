"""ids -> logits. Knows nothing of masks, blocks or decoding."""
