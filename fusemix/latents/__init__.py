"""Latents on disk (`file`, `writer`) and latents of several modalities joined on their items (`paired`)."""
