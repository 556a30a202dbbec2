"""The compiled part: the key index and the row hash. Nothing else belongs here."""
