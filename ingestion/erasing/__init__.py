"""Sessions and subjects are forgotten: asked for, removed row by row wherever they are, and counted before and after."""
