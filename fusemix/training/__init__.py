"""Training adapters on latents (`fuse`), its settings, schedule, validation and checkpoints."""
