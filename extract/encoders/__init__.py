"""Encoders that fusemix brings; each module imports its model library only when the encoder is made."""
