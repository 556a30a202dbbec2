"""The protocol as a model: every interleaving of small runs with faults, searched breadth-first. Imports no onefold."""
