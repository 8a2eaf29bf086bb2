"""The whole city on one machine: prepares a data root, starts the Procfile, says each second how far every stage is."""
