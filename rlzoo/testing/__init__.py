"""Public help for plugin authors: toys, an in-memory context, the conformance kit. Importing this loads no torch."""
