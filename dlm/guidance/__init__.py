"""Ordered operations on the clean logits, before anything is drawn or scored."""
