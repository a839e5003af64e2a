"""Loads for a server: many clients at once, beside the same requests without HTTP."""
