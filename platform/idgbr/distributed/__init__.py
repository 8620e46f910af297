"""Ray: sources, trainers, actor pools and the pipeline. The only part of the package that imports Ray."""
