"""From the words of a run file or a command line to a run in which every value is settled. Light."""

DEFAULT_POLICY = "gradtts"
DEFAULT_PROMPTS = "short"
