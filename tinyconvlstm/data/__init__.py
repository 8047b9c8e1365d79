"""Data: real handwritten digits, packaged; moving digits made from them; MNIST's file format."""
