"""Functions of arrays that have no parameters: masking, queue, beam search, rows of a mesh."""
