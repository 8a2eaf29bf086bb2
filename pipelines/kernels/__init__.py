"""Pure functions over frames: no Beam, no files, no clock. Every engine calls the same ones."""
