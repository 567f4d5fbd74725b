"""The table of the built-in kinds' fields: numbers, names and types, from the public `generated.proto` files."""
