"""Text as token ids, by the tokenizer of the package."""
