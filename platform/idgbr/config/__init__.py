"""Configuration of an experiment: one typed tree, YAML files and dotted overrides."""
