"""MLflow as the platform's memory: tracked runs, model versions, aliases."""
